"""The page is what the stored results say."""

import json
from pathlib import Path

from dashboards.reproduction import page, pictures

ROOT = Path(__file__).parents[2]


def store(folder: Path, nag: float) -> None:
    errors = {("nag", 0.995): nag, ("cm", 0.995): 1.0, ("nag", 0.99): 0.5, ("nag", 0.9): 2.0}
    runs = [
        {
            "params": {"method": method, "mu_max": mu, "lr": 0.1},
            "replicate": seed,
            "state": "complete",
            "updates": 9,
            "series": {"train_squared_error": [[9, value + seed / 100]]},
        }
        for (method, mu), value in errors.items()
        for seed in range(5)
    ]
    head = {"experiment": "s13-table1-curves", "protocol": "reduced", "measured_on": "2026-01-01", "seconds": 61}
    (folder / "s13-table1-curves.reduced.json").write_text(json.dumps({**head, "about": "a tiny net", "runs": runs}))


def test_page_follows_the_results(tmp_path: Path) -> None:
    store(tmp_path, 0.3)
    text = page(tmp_path)
    assert "NAG ends lower than CM at mu_max .995 | curves .091 / .10 | NAG 0.32 (0.3 to 0.34), CM 1.02" in text
    assert "**holds**" in text
    assert "`s13-table1-curves`, reduced protocol: a tiny net; 20 trials; 61 s of training, 2026-01-01." in text
    assert "**not run**" in text  # CM at .99, SGD
    assert "`gb10-fig5` |" in text  # ready and not run
    store(tmp_path, 3.0)
    assert "**does not hold**" in page(tmp_path)


def test_committed_page_is_what_the_committed_results_say() -> None:
    assert (ROOT / "REPRODUCTION.md").read_text(encoding="utf-8") == page(ROOT / "docs" / "reproduction")


def test_what_skipping_doomed_nets_would_have_saved(tmp_path: Path) -> None:
    runs = [
        {
            "params": {"init_scale": 1.0},
            "replicate": seed,
            "state": "complete",
            "updates": 100,
            "doomed": "lengths shrink" * (seed < 2),
            "series": {"train_squared_error": [[100, error]]},
        }
        for seed, error in enumerate((7.0, 6.0, 0.5, 1.0))
    ]
    path = tmp_path / "s13-table3.reduced.json"
    path.write_text(json.dumps({"experiment": "s13-table3", "protocol": "reduced", "runs": runs}))
    assert "| `s13-table3` | 4 | 2 | 50% | 6 | 0.5 | no |" in page(tmp_path)
    runs[0]["series"]["train_squared_error"][0][1] = 0.1
    path.write_text(json.dumps({"experiment": "s13-table3", "protocol": "reduced", "runs": runs}))
    assert "| `s13-table3` | 4 | 2 | 50% | 0.1 | 0.1 | yes |" in page(tmp_path)


def test_pictures_hold_each_stored_result_with_its_claims(tmp_path: Path) -> None:
    store(tmp_path, 0.3)
    text = pictures(tmp_path)
    assert 'id="s13-table1-curves-reduced"' in text
    assert "NAG ends lower than CM at mu_max .995" in text
    assert text.count('class="plot"') == 2
