"""`musweep compare` and `musweep confirm`, as typed: what is shown, stored and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import cli, compare
from sweeps.comparison import Comparison, PublishedValue
from sweeps.folder import read_spec, read_spec_file
from sweeps.lease import Lease
from tests.sweeps.confirmed import CM, HF, NAG, RESOLVED, TEN, Point, make, times

WORSE = Point(HF, 0.45, times(1.5), "hf")
BARE: dict[str, Any] = {"confirm": None, "baselines": []}
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def say(*words: str) -> tuple[int, str, str]:
        code = cli.main(list(words))
        return code, *capsys.readouterr()

    return say


def test_the_first_line_is_the_verdict(said: Said, tmp_path: Path) -> None:
    make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), Point(CM, 0.5, times(1.1)), WORSE)
    code, out, _ = said("compare", "one")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("NAG (µ_max 0.99, lr 0.012) ends at 0.67 times HF's error (95% ")
    assert " ".join(lines[:2]).strip().endswith("better.")
    arm = next(line for line in lines if line.startswith("p1 "))
    assert " ".join(arm.split()) == "p1 NAG, µ_max 0.99, lr 0.012 0 of 10 (0–28%) 0.587 (0.545–0.632) 0.400 2.0s"
    contrast = next(line for line in lines if line.startswith("p1 : hf *"))
    assert contrast.split()[4:6] == ["better", "0.67"]


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_terminal(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    make(tmp_path / "runs" / "one", Point(NAG, 0.4, (*TEN[:8], 6.9, None)), Point(CM, 0.5, TEN), WORSE)
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = said("compare", "one", "--against", "published")
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out
    assert "0.568 (0.529–0.611)" in out


def test_json_is_what_the_folder_keeps(said: Said, tmp_path: Path) -> None:
    folder = make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), WORSE)
    code, out, err = said("compare", "one", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((folder / "comparison.json").read_text())
    assert Comparison.from_dict(json.loads(out)).sweep_id == "one"


def test_mlflow_hears_of_a_comparison_that_says_something_else(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Path] = []

    def sync(folder: Path) -> str:
        told.append(folder)
        if len(told) > 1:
            raise ConnectionError("refused\nand more")
        return ""

    monkeypatch.setattr("sweeps.tracking.sync", sync)
    folder = make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), WORSE, spec={"mlflow": {"enabled": True}})
    assert [said("compare", "one")[2], said("compare", "one")[2]] == ["", ""]
    assert told == []  # the first was the end of the sweep's to tell, the second says the same
    for line in ("", "MLflow: refused; musweep sync runs/one tells it\n"):
        (folder / "comparison.json").write_text("{}")
        code, out, err = said("compare", "one")
        assert (code, err) == (0, line)
        assert "better" in out
    assert len(told) == 2


def test_what_was_asked_for_otherwise_is_not_kept(said: Said, tmp_path: Path) -> None:
    folder = make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), WORSE)
    make(tmp_path / "runs" / "two", Point(CM, 0.4, TEN))
    assert said("compare", "one", "--against", "two")[0] == 0
    code, out, _ = said("compare", "one", "two")
    assert (code, out[:6]) == (0, "two (C")  # a sentence that begins with a name keeps it
    assert not (folder / "comparison.json").exists()


def test_published_values_lead_when_asked_for(said: Said, tmp_path: Path) -> None:
    make(tmp_path / "runs" / "one", Point(NAG, 0.4, (*TEN, 7.0)))
    code, out, _ = said("compare", "one", "--against", "published")
    words = " ".join(out.split())
    assert code == 0
    assert words.startswith("NAG, µ_max 0.99, lr 0.012: 0.587 (0.545–0.632) from 11 runs, 1 of them stuck or diverged.")
    assert "printed values may stand beside that as its equal" in words
    assert "Published, not comparable with ours" in words
    assert ".999N 0.074" in words


def printed(column: str, value: float | None, why: str = "") -> PublishedValue:
    return PublishedValue("t", "Row", column, value, "Paper, Table 1", "", "verified", not why, why)


def test_reasons_that_all_values_share_are_told_once() -> None:
    values = [printed("A", 0.1, "data; net"), printed("B", None, "data; net; odd"), printed("C", 2.0)]
    assert compare.published(values) == [
        "\n[bold]Published, got in the same way[/]", "Paper, Table 1, Row: C 2",
        "\n[bold]Published, not comparable with ours[/]", "Paper, Table 1, Row: A 0.1 · B -",
        "[dim]- data; net[/]", "[dim]- B: odd[/]",
    ]  # fmt: skip


def test_a_comparable_number_is_named_first(tmp_path: Path) -> None:
    found = Comparison("s", "m", "min", "t", "", 1, 1, 0, "work", None, None, None, 0.1, published=(printed("C", 2.0),))
    assert compare.beside(found) == (
        "[bold]Nothing was confirmed.[/] Printed, and got in the same way: C 2 (Paper, Table 1)."
    )


def test_refusals_are_shown_and_nothing_compared_is_code_2(said: Said, tmp_path: Path) -> None:
    make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), WORSE)
    make(tmp_path / "runs" / "two", Point(NAG, 0.4, TEN), spec={"task": {"name": "curves", "size": 12}})
    code, out, _ = said("compare", "one", "two")
    assert code == 2
    assert out.startswith("No verdict: the reasons are below.")
    assert "- two is not compared with one: task.size: 12 against 14" in out


@pytest.mark.parametrize("width", [80, 120])
def test_methods_over_tasks_are_a_table_and_a_result(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), WORSE, Point(CM, 0.5, TEN))
    make(tmp_path / "runs" / "two", Point(NAG, 0.4, TEN), WORSE, spec={"task": {"name": "curves", "size": 12}})
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = said("compare", "one", "two")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "- two is not compared with one: task.size: 12 against 14" in out
    assert "Methods over 2 sweeps" in lines
    assert "method ≤ 1 × ≤ 1.1 × ≤ 1.5 × ≤ 2 × ≤ 5 × failed" in lines
    assert "NAG 2 of 2 2 of 2 2 of 2 2 of 2 2 of 2 0" in lines
    assert "HF 0 of 2 0 of 2 2 of 2 2 of 2 2 of 2 0" in lines
    assert "left out: CM: not on two" in out
    assert max(map(len, out.splitlines())) <= width
    code, out, _ = said("compare", "one", "two", "--json")
    assert (code, json.loads(out)["profile"]["share"]["nag"]) == (0, [1.0] * 5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "nothing: no such sweep folder"),
        (["bare"], "`musweep confirm runs/bare --top 3 --seeds 10 --hf`"),
        (["one", "--against", "other"], "no baseline 'other' was measured; there are: hf, published"),
        (["one", "--match", "luck"], "--match=luck: one of work, wall"),
        (["one", "bare", "--against", "hf"], "several sweeps are compared with one of them"),
    ],
)
def test_mistakes_are_one_line_and_code_2(said: Said, tmp_path: Path, words: list[str], told: str) -> None:
    make(tmp_path / "runs" / "one", Point(NAG, 0.4, TEN), WORSE)
    make(tmp_path / "runs" / "bare", Point(NAG, 0.4, ()), spec=BARE)
    code, out, err = said("compare", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_colours_are_blue_and_orange_and_words_say_it_too(tmp_path: Path) -> None:
    assert {name: style.split()[-1] for name, style in compare.STYLES.items()} == {
        "better": "blue", "worse": "dark_orange", "equivalent": "bold",
    }  # fmt: skip


# -- musweep confirm -----------------------------------------------------------------------------------------


def test_a_finished_sweep_is_asked_to_confirm(tmp_path: Path) -> None:
    from sweeps.resolve import known_of_data

    folder = make(tmp_path / "one", Point(NAG, 0.4, ()), spec=BARE, resolved={"trivial": {}, "data": {}})
    before = read_spec_file(folder)
    assert compare.add_confirm(folder, 2, 8, True) == folder
    after = read_spec_file(folder)
    spec = read_spec(folder)
    assert spec.confirm is not None
    assert (spec.confirm.top, spec.confirm.seeds) == (2, 8)
    assert [baseline.kind for baseline in spec.baselines] == ["hf"]
    assert {key for key in after if after[key] != before[key]} == {"confirm", "baselines", "resolved"}
    # What sweeps of before did not store is looked up: the error of a constant, and what the data are.
    trivial, data = known_of_data(spec)
    assert after["resolved"] == {**RESOLVED, "trivial": trivial, "data": data}
    assert trivial["train_squared_error"] == pytest.approx(7.1, abs=0.5)


def test_hf_can_be_added_to_what_is_confirmed_already(tmp_path: Path) -> None:
    folder = make(tmp_path / "one", Point(NAG, 0.4, TEN), spec={"baselines": []})
    compare.add_confirm(folder, 1, 6, True)
    spec = read_spec(folder)
    assert spec.confirm is not None
    assert (spec.confirm.top, spec.confirm.seeds, len(spec.baselines)) == (3, 10, 1)


def test_confirming_twice_is_refused_and_so_is_a_running_sweep(tmp_path: Path, said: Said) -> None:
    folder = make(tmp_path / "one", Point(NAG, 0.4, TEN), WORSE)
    code, _, err = said("confirm", "one", "--hf")
    assert (code, err) == (2, "error: one: its spec has that already; go on with: musweep resume one\n")
    with Lease(folder):
        code, _, err = said("confirm", "one")
    assert code == 2
    assert "error: " in err
