"""`ls` and `show` say what the journal holds."""

import dataclasses
import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from cluster import folders, show
from sweeps.lease import Lease
from tests.dashboards.synthetic import Sweep, make
from tests.sweeps import told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> folders.Folder:
    return folders.read(make(tmp_path_factory.mktemp("runs") / "one", Sweep()))


def printed(made: RenderableType) -> list[str]:
    out = Console(file=io.StringIO(), width=160)
    out.print(made)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_table_of_best_trials_is_in_order_and_complete(folder: folders.Folder) -> None:
    best = folder.ranked()
    assert len(best) >= 5
    lines = printed(show.best_trials(folder, 5))
    shown = [line.split()[0] for line in lines if line.startswith("t0")]
    assert shown == [trial.id for trial in best[:5]]


def test_rungs_add_up(folder: folders.Folder) -> None:
    made = show.rungs(folder)
    assert made is not None
    rows = [list(map(int, line.split())) for line in printed(made) if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == [200, 600, 1200]
    for _, reached, passed, stopped in rows:
        assert passed + stopped <= reached
    assert sum(row[3] for row in rows) == sum(trial.state == "stopped" for trial in folder.history.trials.values())
    assert [later[1] <= earlier[2] for earlier, later in itertools.pairwise(rows)] == [True, True]


def test_a_stopped_trial_is_placed_among_those_it_was_compared_with(folder: folders.Folder) -> None:
    stopped = [trial for trial in folder.history.trials.values() if trial.stopped_at_rung == 200]
    scores = sorted(t.scores[200] for t in folder.history.trials.values() if 200 in t.scores)
    for trial in stopped:
        place = scores.index(trial.scores[200]) + 1
        assert show.why(folder, trial).endswith(f"no. {place} of {len(scores)}")


def test_places_are_within_equal_depth_where_the_spec_compares_so(folder: folders.Folder) -> None:
    within = folders.Folder(
        folder.path, {**folder.spec, "early_stopping": {"compare_within": ["depth"]}}, folder.history
    )
    trial = next(t for t in folder.history.trials.values() if t.stopped_at_rung == 200)
    rivals = [
        t for t in folder.history.trials.values() if 200 in t.scores and t.params["depth"] == trial.params["depth"]
    ]
    assert show.why(within, trial).endswith(f"of {len(rivals)}")
    assert len(rivals) < 64


def test_one_trial_shows_parameters_curve_and_metrics(folder: folders.Folder) -> None:
    out = Console(file=io.StringIO(), width=160)
    best = folder.ranked()[0]
    show.show_trial(folder, best, out)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert said.startswith(f"{best.id}  complete")
    assert f"no. 1 of {len(folder.ranked())} complete" in said
    for name in best.params:
        assert name in said
    assert "│" in said
    assert "rungs passed: 200, 600, 1200" in said


def test_a_sweep_is_summed_up(folder: folders.Folder) -> None:
    out = Console(file=io.StringIO(), width=160)
    show.show_sweep(folder, out)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "curves-depth-20260528-202640-ab12  finished" in said
    assert "64 of 64 trials ended" in said
    assert "musweep resume" not in said


def test_states_of_sweeps(tmp_path: Path) -> None:
    cut = folders.read(make(tmp_path / "cut", Sweep(trials=8, close=None)))
    assert show.state_of(cut) == "cut off"
    with Lease(cut.path):
        assert show.state_of(cut) == "running"
    assert show.state_of(cut) == "cut off"
    assert show.state_of(folders.read(make(tmp_path / "left", Sweep(trials=8, close="interrupted")))) == "interrupted"


def test_the_list_keeps_going_past_a_damaged_sweep(tmp_path: Path) -> None:
    make(tmp_path / "good", Sweep(trials=8))
    bad = make(tmp_path / "bad", Sweep(trials=8))
    (bad / "spec.json").write_text("{")
    made = show.listing(tmp_path)
    assert made is not None
    said = "\n".join(printed(made))
    assert "unreadable" in said
    assert "8/8" in said
    assert show.listing(tmp_path / "nothing") is None


def test_the_end_of_a_run_tells_why_trials_failed(folder: folders.Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = folder.history.trials.values()
    failed = dataclasses.replace(first, state="failed", objective=None, reason="RuntimeError: no luck")
    history = dataclasses.replace(folder.history, trials={t.number: t for t in (failed, *rest)})
    monkeypatch.setattr(show, "read", lambda path: dataclasses.replace(folder, history=history))
    out = Console(file=io.StringIO(), width=160)
    show.show_end(folder.path, out)
    assert f"{first.id} failed: RuntimeError: no luck\n" in out.file.getvalue()  # type: ignore[attr-defined]


def test_the_end_says_whether_any_trial_trained(tmp_path: Path, folder: folders.Folder) -> None:
    said = [[told.opened(1, 0)], [told.ask(0, 1), told.ask(1, 1)], [told.end(n, "failed", 0, 2) for n in (0, 1)]]
    out = Console(file=io.StringIO(), width=200)
    assert not show.show_end(told.write(tmp_path / "failed", said), out)
    assert "why failed" in out.file.getvalue()  # type: ignore[attr-defined]
    assert show.show_end(folder.path, out)
