import json
from pathlib import Path

import pytest

from dashboards import rerun
from dashboards.view import read
from sweeps.folder import create
from sweeps.spec import SweepSpec, load
from tests.dashboards.synthetic import Sweep, make

SPEC = {
    "name": "again", "task": "digits", "space": {"lr": {"type": "float", "low": 0.01, "high": 0.1}},
    "budget": {"trials": 4}, "confirm": {"top": 1, "seeds": 6}, "baselines": [{"kind": "hf"}],
    "training": {"updates": 2000, "batch": 50},
}  # fmt: skip


def test_commands_lead_from_a_checkout_to_the_report(tmp_path: Path) -> None:
    view = read(make(tmp_path / "my sweep", Sweep(trials=3)))
    assert rerun.commands(view) == [
        "git checkout 0123abcd", "make install", "musweep run curves-depth.yaml --out 'my sweep'",
        "musweep report 'my sweep' --open",
    ]  # fmt: skip
    view.history.extended = 5
    assert "musweep run 'my sweep' --more 5" in rerun.commands(view)


def test_names_cannot_become_commands(tmp_path: Path) -> None:
    view = read(make(tmp_path, Sweep(trials=1, name="a; rm -rf $(b)")))
    view.history.versions["git"] = "$(c)+changes"
    text = " ".join(rerun.commands(view))
    assert "rm -rf" not in text
    assert "$(" not in text


@pytest.mark.parametrize("suffix", [".yaml"])
def test_the_spec_shown_is_one_that_gives_the_same_sweep(tmp_path: Path, suffix: str) -> None:
    spec = SweepSpec.model_validate(SPEC)
    folder = create(spec, tmp_path / "sweep")
    data = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(data | {"resolved": {"workers": 2, "versions": {"torch": "2"}}}))
    (folder / "journal.jsonl").touch()
    again = tmp_path / f"again{suffix}"
    again.write_text(rerun.spec_text(read(folder)))
    assert load(again) == spec
