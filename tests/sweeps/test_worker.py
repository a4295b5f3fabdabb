"""The worker's own decisions, with a pretend group in the place of training."""

import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sweeps import worker as worker_module
from sweeps.round import Answer, Seated
from sweeps.schema import Phase, Target
from sweeps.schema_baselines import Confirm
from sweeps.spec import SweepSpec
from sweeps.worker import GroupWorker
from trainers.checkpoint import pack, unpack
from trainers.state import TrialState

SPEC = SweepSpec.model_validate(
    {
        "task": "digits",
        "training": {"updates": 100, "reports": 5, "batch": 10},
        "space": {"lr": {"type": "float", "low": 0.1, "high": 1.0}},
        "early_stopping": {"rungs": [40], "fork": {"updates": 7, "mu": 0.5}},
        "objective": "valid_loss",
    }
)


class PretendGroup:
    """Counts updates; a trial's loss is its number. Trial 3 cannot start and trial 4 diverges at update 25."""

    def __init__(self) -> None:
        self.updates: dict[int, int] = {}

    def add(self, config, state=None) -> None:
        if config.number == 3:
            raise MemoryError("no room for trial 3")
        self.updates[config.number] = 0 if state is None else state.update

    def remove(self, number: int) -> None:
        del self.updates[number]

    def advance(self, until) -> dict[int, float]:
        self.updates.update(until)
        return dict.fromkeys(until, 0.25)

    def measure_on(self, examples: int) -> None:
        self.examples = examples

    def evaluate(self, numbers):
        self.measured = [*getattr(self, "measured", []), (sorted(numbers), self.examples)]
        return {n: {"valid_loss": math.nan if self.diverged_at(n) else float(n)} for n in numbers}

    def engine(self, number: int) -> str:
        return "hf" if number == 8 else "loop"

    def fork(self, numbers, updates: int, mu: float):
        return {n: {"valid_loss": 100 * n + updates + mu} for n in numbers}

    def forks(self, numbers, phases: list[tuple[int, float]]):
        return [self.fork(numbers, updates, mu) for updates, mu in phases]

    def diverged_at(self, number: int) -> int | None:
        return 25 if number == 4 and self.updates[number] >= 25 else None

    def state(self, number: int) -> TrialState:
        layer = [(torch.full((2, 2), float(number)), torch.zeros(2))]
        return TrialState(self.updates[number], layer, layer)


@pytest.fixture(autouse=True)
def announced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What workers told the board before they trained it alone; there is no board here."""
    told: list[int] = []
    monkeypatch.setattr(GroupWorker, "_announce", lambda self, number: told.append(number))
    return told


def seated(number: int, update: int = 0, stage: str = "search", updates: int = 100) -> Seated:
    return Seated(stage, SPEC.trial_config(number, {"lr": 0.5}).to_dict() | {"updates": updates}, update)


def worker_in(folder: Path, *trials: tuple[int, int], spec: SweepSpec = SPEC) -> GroupWorker:
    """A worker that has just attached, holding trials (number, update)."""
    worker = object.__new__(GroupWorker)
    worker._group, worker._folder, worker._spec = 0, folder, spec
    worker._start, worker._trials = None, PretendGroup()
    worker._open()
    worker._restore(tuple(seated(n, update) for n, update in trials))
    return worker


def test_each_trial_is_trained_to_its_own_next_report(tmp_path: Path) -> None:
    entries = worker_in(tmp_path, (1, 20), (2, 60))._advance()
    assert [(e.number, e.update, e.wall_s) for e in entries] == [(1, 40, 0.25), (2, 80, 0.25)]


def test_a_rungs_score_is_the_forks_and_other_scores_are_the_objective(tmp_path: Path) -> None:
    entries = worker_in(tmp_path, (1, 20), (2, 60))._advance()
    assert [e.score for e in entries] == [107.5, 2.0]


def test_training_forks_is_told_apart_from_measuring_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_in(tmp_path, (1, 20), (2, 60))
    ticks = iter([10.0, 11.0, 20.0, 23.0])  # half a second to measure a net; a rung's fork of trial 1 alone
    monkeypatch.setattr(worker_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert [entry.fork_s for entry in worker._advance()] == [3.0 - 0.5, 0.0]


def test_a_trial_that_cannot_start_is_reported_failed_and_the_others_train(tmp_path: Path) -> None:
    worker = worker_in(tmp_path, (3, 0), (5, 0))
    by_number = {entry.number: entry for entry in worker._advance()}
    assert by_number[3].failed == "MemoryError: no room for trial 3"
    assert by_number[5].failed is None
    assert by_number[5].update == 20
    assert not worker._obey(Answer(drop=(3,)))
    assert [entry.number for entry in worker._advance()] == [5]


def test_a_divergence_has_its_update_and_no_score(tmp_path: Path) -> None:
    worker = worker_in(tmp_path, (4, 20))
    entry = worker._advance()[0]
    assert entry.diverged_at == 25
    assert math.isnan(entry.score)
    assert not (tmp_path / "models").exists()


def test_a_complete_trials_weights_are_kept(tmp_path: Path) -> None:
    worker_in(tmp_path, (2, 80))._advance()
    kept = unpack((tmp_path / "models" / "t00002.npz").read_bytes())[2]
    assert kept.update == 100
    assert bool((kept.params[0][0] == 2).all())


def test_states_are_kept_at_the_reports_that_the_spec_names(tmp_path: Path) -> None:
    kept = SPEC.model_copy(update={"training": SPEC.training.model_copy(update={"keep": [40]})})
    worker = worker_in(tmp_path, (1, 0), (4, 0), spec=kept)
    for _ in range(3):
        worker._advance()
    (kept,) = (tmp_path / "states").iterdir()  # trial 4 has diverged before
    assert kept.name == "t00001-40.npz"
    assert unpack(kept.read_bytes())[1].update == 40


def test_a_trial_that_reaches_its_target_has_its_state_kept(tmp_path: Path) -> None:
    target = Target(metric="valid_loss", below=1.5)
    worker = worker_in(tmp_path, (1, 20), (2, 20), spec=SPEC.model_copy(update={"target": target}))
    worker._advance()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["t00001.npz"]


def test_forks_are_rows_of_the_trials_that_stand_where_they_begin(tmp_path: Path) -> None:
    phases = [Phase(name="early", at=40, updates=60, mu=0.5), Phase(name="end", at=80, updates=20, mu=0.25)]
    phases.append(Phase(name="short", at=40, updates=10, mu=0.5))
    worker = worker_in(tmp_path, (1, 60), (2, 20), spec=SPEC.model_copy(update={"forks": phases}))
    assert [dict(entry.metrics) for entry in worker._advance()] == [
        {"valid_loss": 1.0, "fork/end/valid_loss": 120.25},
        {"valid_loss": 2.0, "fork/early/valid_loss": 260.5, "fork/short/valid_loss": 210.5},
    ]


def test_two_checkpoints_are_kept_and_the_newest_whole_one_is_used(tmp_path: Path) -> None:
    worker = worker_in(tmp_path, (1, 0), (2, 0))
    for _ in range(4):
        worker._advance()
        worker._write_checkpoint()
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert len(files) == 2
    files[-1].write_bytes(files[-1].read_bytes()[:-7])
    assert {n: s.update for n, s in worker._checkpoints.read({1: 80, 2: 80}).items()} == {1: 60, 2: 60}


def test_a_checkpoint_ahead_of_the_journal_is_passed_over(tmp_path: Path) -> None:
    worker = worker_in(tmp_path, (1, 0))
    for update in (20, 40):
        worker._trials.updates[1] = update
        worker._write_checkpoint()
    assert worker._checkpoints.read({1: 39})[1].update == 20
    assert worker._checkpoints.read({1: 19}) == {}


def test_a_restart_catches_up_without_reporting(tmp_path: Path) -> None:
    first = worker_in(tmp_path, (1, 0), (2, 0))
    first._advance()
    first._write_checkpoint()
    second = worker_in(tmp_path, (1, 60), (2, 20))
    assert second._at == {1: 60, 2: 20}
    assert second._trials.updates == {1: 60, 2: 20}


@pytest.mark.parametrize(("cost", "due"), [(0.0, True), (1e6, False)])
def test_checkpoints_take_a_bounded_share_of_the_time(tmp_path: Path, cost: float, due: bool) -> None:
    worker = worker_in(tmp_path, (1, 20))
    worker._checkpoint_cost = cost
    worker._advance()
    worker._obey(Answer(checkpoint=True))
    assert (tmp_path / "checkpoints").exists() == due


@pytest.mark.parametrize(("ago", "due"), [(59.0, False), (61.0, True)])
def test_trials_that_pass_no_rung_are_stored_once_a_minute(tmp_path: Path, ago: float, due: bool) -> None:
    worker = worker_in(tmp_path, (1, 20))
    worker._advance()
    worker._last_checkpoint = time.monotonic() - ago
    worker._obey(Answer())
    assert (tmp_path / "checkpoints").exists() == due


def test_leaving_writes_a_checkpoint_whatever_it_costs(tmp_path: Path) -> None:
    worker = worker_in(tmp_path, (1, 20))
    worker._checkpoint_cost = 1e6
    worker._advance()
    assert worker._obey(Answer(leave=True))
    assert pack({1: worker._trials.state(1)}) == next((tmp_path / "checkpoints").iterdir()).read_bytes()


def test_trials_of_other_stages_have_reports_rungs_and_examples_of_their_own(tmp_path: Path) -> None:
    """Of a group that holds both: one searched trial at its rung, two confirmed, one of them of 50 updates only."""
    training = SPEC.training.model_copy(update={"eval_examples": 77})
    confirm = Confirm(top=1, seeds=6, eval_examples=300)
    worker = worker_in(tmp_path, (1, 20), spec=SPEC.model_copy(update={"training": training, "confirm": confirm}))
    assert not worker._obey(Answer(new=(seated(5, stage="confirm"), seated(6, stage="confirm", updates=50))))
    for number, update in ((5, 20), (6, 40)):
        worker._at[number] = worker._trials.updates[number] = update
    entries = {entry.number: entry for entry in worker._advance()}
    assert {number: (entry.update, entry.score) for number, entry in entries.items()} == {
        1: (40, 107.5), 5: (40, 5.0), 6: (50, 6.0),
    }  # fmt: skip
    assert worker._trials.measured == [([1], 77), ([5], 300), ([6], 300)]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["t00006.npz"]


def test_a_group_without_trials_reports_none(tmp_path: Path) -> None:
    worker = worker_in(tmp_path)
    assert worker._advance() == []
    assert not worker._obey(Answer(new=(seated(7),)))
    assert [entry.number for entry in worker._advance()] == [7]
    assert worker._obey(Answer(drop=(7,), done=True))


def test_only_those_that_the_board_waits_for_are_trained_and_reported(tmp_path: Path) -> None:
    """As when another group's trials are taken over in the middle of a round; one of them has a checkpoint."""
    other = worker_in(tmp_path, (8, 0))
    other._advance()
    other._write_checkpoint()
    worker = worker_in(tmp_path, (1, 20), (2, 60))
    worker._advance()
    assert not worker._obey(Answer(drop=(2,), new=(seated(8, 40), seated(3), seated(9)), only_new=True))
    assert worker._trials.updates == {1: 40, 8: 40, 9: 0}, "it catches up to where the journal has it"
    assert {entry.number: entry.update for entry in worker._advance()} == {8: 60, 9: 20, 3: 0}
    assert not worker._obey(Answer(drop=(3,)))
    assert {entry.number: entry.update for entry in worker._advance()} == {1: 60, 8: 80, 9: 40}


class NarrowGroup(PretendGroup):
    """Has no memory for more than three trials in a step."""

    most = 3

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[int]] = []

    def advance(self, until) -> dict[int, float]:
        self.steps.append(sorted(self.updates))
        if len(self.updates) > self.most:
            raise MemoryError(f"{len(self.updates)} trials")
        return super().advance(until)


def narrow(folder: Path, size: int | None, *trials: tuple[int, int], alone: bool = False, most: int = 3) -> GroupWorker:
    """A worker of a narrow group, of which so many trials are in memory at once."""
    worker = worker_in(folder)
    worker._trials = NarrowGroup()
    worker._trials.most = most
    worker._open()
    worker._residents.limit(size)
    worker._alone = alone
    worker._restore(tuple(seated(number, update) for number, update in trials))
    return worker


def test_a_group_that_ran_out_of_memory_is_trained_in_parts(tmp_path: Path) -> None:
    trials = [(number, 20 * (number % 3)) for number in (1, 2, 5, 6, 7)]
    with pytest.raises(MemoryError):
        narrow(tmp_path, None, *trials)
    worker = narrow(tmp_path, 2, *trials)
    entries = {entry.number: entry.update for entry in worker._advance()}
    assert entries == {number: update + 20 for number, update in trials}
    assert max(map(len, worker._trials.steps)) == 2
    worker._write_checkpoint()
    assert {n: s.update for n, s in worker._checkpoints.read(dict.fromkeys(entries, 100)).items()} == entries
    assert not worker._obey(Answer(drop=(2, 5), new=(seated(9),)))
    assert {entry.number: entry.update for entry in worker._advance()} == {1: 60, 6: 40, 7: 60, 9: 20}


def test_parts_hold_the_same_bits_as_the_whole(tmp_path: Path) -> None:
    """With real training: what was put out of memory and brought back goes on as if it had stayed."""
    from trainers.group import Group
    from trainers.tasks import load

    def trained(size: int | None) -> dict[int, float]:
        worker = worker_in(tmp_path)
        worker._trials = Group(load("digits", {}), "loop")
        worker._open()
        worker._residents.limit(size)
        worker._restore(tuple(seated(number) for number in range(5)))
        for _ in range(2):
            entries = worker._advance()
        return {entry.number: entry.metrics["valid_loss"] for entry in entries}

    assert trained(2) == trained(None)


def test_a_trial_too_large_for_the_memory_fails_alone(tmp_path: Path) -> None:
    worker = narrow(tmp_path, 1, (1, 0), (2, 20), most=0)
    entries = {entry.number: entry for entry in worker._advance()}
    assert {number: entry.failed for number, entry in entries.items()} == {
        1: "MemoryError: 1 trials", 2: "MemoryError: 1 trials",
    }  # fmt: skip


class FaultyGroup(PretendGroup):
    """Raises whenever trial 6 passes update 30."""

    def advance(self, until) -> dict[int, float]:
        if until.get(6, 0) > 30:
            raise ValueError("six")
        return super().advance(until)


@pytest.mark.parametrize("update", [20, 40])
def test_looked_for_one_by_one_a_trial_that_raises_fails_alone(
    tmp_path: Path, update: int, announced: list[int]
) -> None:
    """Whether it raises in its next step or while it catches up."""
    worker = worker_in(tmp_path)
    worker._trials = FaultyGroup()
    worker._open()
    worker._alone = True
    worker._restore(tuple(seated(number, update) for number in (5, 6, 7)))
    entries = {entry.number: entry for entry in worker._advance()}
    assert {number: entry.failed for number, entry in entries.items()} == {5: None, 6: "ValueError: six", 7: None}
    assert 'raise ValueError("six")' in entries[6].traceback
    assert entries[5].update == update + 20
    assert announced.count(6) == (2 if update == 20 else 1), "before it catches up, before its next step"
    assert not worker._obey(Answer(drop=(6,)))
    assert [entry.number for entry in worker._advance()] == [5, 7]


@pytest.mark.parametrize("words", ["ConnectionError: no route", "OSError: [Errno 28] No space left on device"])
def test_no_trial_fails_for_what_its_machine_does(tmp_path: Path, words: str) -> None:
    worker = worker_in(tmp_path)

    def advance(until) -> dict[int, float]:
        kind, _, rest = words.partition(": ")
        raise {"ConnectionError": ConnectionError, "OSError": OSError}[kind](rest)

    worker._alone = True
    worker._restore((seated(1), seated(2)))
    worker._trials.advance = advance
    with pytest.raises((ConnectionError, OSError)):
        worker._advance()
