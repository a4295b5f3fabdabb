import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import history, journal
from sweeps.history import END_STATES, History
from tests.sweeps import told

SAID = [record for commit in told.commits() for record in commit]


def test_the_fold_of_the_told_sweep() -> None:
    found = history.fold(SAID)
    assert (found.sweep_id, found.epoch, found.opened_at) == (told.SWEEP_ID, 2, told.START)
    assert (found.extended, found.closed) == (1, "finished")
    states = {number: trial.state for number, trial in found.trials.items()}
    assert states == {0: "complete", 1: "stopped", 2: "diverged", 3: "failed", 4: "complete", 5: "skipped"}
    assert set(states.values()) == set(END_STATES)
    first = found.trials[0]
    assert first.id == "t00000"
    assert first.objective == told.value(0, 40, "valid_loss") == 1 / 40 + 1
    assert sorted(first.metrics) == [10, 20, 30, 40]
    assert first.promoted == {20}
    assert (first.updates, first.work, first.wall_s, first.engine) == (40, 1280.0, 2.0, "loop")
    assert found.trials[1].stopped_at_rung == 20
    assert found.trials[5].updates == 0


def test_non_finite_measurements_come_back() -> None:
    diverged = history.fold(SAID).trials[2]
    assert math.isnan(diverged.metrics[20]["train_loss"])
    assert diverged.metrics[20]["valid_loss"] == math.inf
    assert diverged.scores[20] == math.inf
    assert diverged.objective is None


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(0, len(SAID)))
def test_folding_in_two_parts_is_folding_at_once(cut: int) -> None:
    found = history.fold(SAID[:cut])
    for record in SAID[cut:]:
        found.apply(record)
    assert repr(found) == repr(history.fold(SAID))  # repr, since nan differs from itself


def test_a_crashed_sweep_is_open_and_its_trials_run(tmp_path: Path) -> None:
    folder = told.write(tmp_path / "sweep", told.commits()[:5])
    found = history.load(folder)
    assert found.closed is None
    assert [n for n, trial in found.trials.items() if trial.state == "running"] == [0, 3]
    assert found.trials[0].updates == 30
    assert found.trials[0].wall_s == 1.5  # three reports of half a second


def test_a_second_driver_opens_it_again() -> None:
    assert history.fold(SAID[:-1]).closed is None
    interrupted = history.fold([record for commit in told.commits()[:6] for record in commit])
    assert interrupted.closed == "interrupted"


def test_a_renamed_sweep_keeps_its_id() -> None:
    found = history.fold([told.opened(1, 0), {**told.opened(2, 9), "sweep_id": "renamed"}])
    assert (found.sweep_id, found.epoch, found.opened_at) == (told.SWEEP_ID, 2, told.START)


def test_an_empty_folder_is_an_empty_history(tmp_path: Path) -> None:
    assert history.load(tmp_path) == History()


def test_what_a_newer_musweep_wrote_is_refused() -> None:
    with pytest.raises(journal.JournalError, match="unknown type 'fold'"):
        history.fold([{"type": "fold"}])
    with pytest.raises(journal.JournalError, match="format 2"):
        history.fold([{**told.opened(1, 0), "format": 2}])


def test_what_trials_have_in_common_is_held_once() -> None:
    asks = [record for record in SAID if record["type"] == "ask"]
    read = [json.loads(json.dumps(record)) for record in SAID]  # as from a file, where each line has strings of its own
    found = history.fold(read)
    first, second, *_ = (found.trials[record["trial"]] for record in asks)
    assert [(t.params, t.config) for t in (first, second)] == [(r["params"], r["config"]) for r in asks[:2]]
    for one, other in zip(first.config, second.config, strict=True):
        assert one is other
    shared = {name: name for name in first.metrics[10]}
    assert all(shared[name] is name for name in second.metrics[10] if name in shared)
