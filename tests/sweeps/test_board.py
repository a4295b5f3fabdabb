"""The board, played with pretend workers: no Ray, no torch, every crash that a process boundary allows."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import history
from sweeps.board import Board
from sweeps.round import Entry, StaleWorkerError
from tests.sweeps.pretend import SPEC, PretendWorker, kill, play, spec_with, table


def test_a_sweep_ends_with_every_trial_in_one_end_state(tmp_path: Path) -> None:
    board = play(tmp_path, spec_with(), 2, 5)
    assert board.finished
    states = [trial.state for trial in board.history.trials.values()]
    assert len(states) == 40
    assert set(states) <= set(history.END_STATES)
    assert {"complete", "stopped", "diverged"} <= set(states)
    for trial in board.history.trials.values():
        assert (trial.state == "complete") == (trial.updates == 90)
        assert (trial.state == "stopped") == (trial.stopped_at_rung in (10, 30))
        assert trial.wall_s == pytest.approx(0.5 * len(trial.metrics))
        assert trial.work == trial.updates * 10
    assert [t.updates for t in board.history.trials.values() if t.state == "diverged"] == [8] * states.count("diverged")


@pytest.mark.parametrize("algorithm", ["random", "qmc", "grid"])
def test_results_do_not_depend_on_groups_slots_or_who_is_faster(tmp_path: Path, algorithm: str) -> None:
    search = {"algorithm": algorithm, "seed": 3}
    if algorithm == "grid":
        search["grid"] = {"lr": 5, "mu_max": 2}
    spec = spec_with(search=search)
    tables = []
    for index, (groups, slots) in enumerate([(1, 1), (1, 7), (2, 3), (3, 16)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        tables.append(table(play(folder, spec, groups, slots, seed=index)))
    assert all(other == tables[0] for other in tables)


def test_tpe_depends_on_groups_and_slots_but_not_on_who_is_faster(tmp_path: Path) -> None:
    spec = spec_with(search={"algorithm": "tpe", "seed": 3})
    tables = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        tables.append(table(play(folder, spec, 2, 4, seed=seed)))
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("order", ["number", "arrival"])
@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_driver_killed_at_any_report_resumes_to_the_same_end(tmp_path: Path, algorithm: str, order: str) -> None:
    stopping = {**SPEC["early_stopping"], "order": order}
    spec = spec_with(search={"algorithm": algorithm, "seed": 3}, early_stopping=stopping, budget={"trials": 18})
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = table(play(whole, spec, 2, 3))
    for rounds in range(0, 30, 1 if algorithm == "random" else 5):
        folder = tmp_path / f"killed{rounds}"
        folder.mkdir()
        kill(play(folder, spec, 2, 3, rounds=rounds))
        kill(play(folder, spec, 2, 3, rounds=3, seed=1))  # again, soon after the resume
        resumed = play(folder, spec, 2, 3, seed=2)
        assert resumed.finished
        ends = [r for r in history.journal.read(folder / "journal.jsonl") if r["type"] == "end"]
        assert sorted(r["trial"] for r in ends) == list(range(18)), "each trial ends once"
        if order == "number":
            assert table(resumed) == expected


def test_a_resume_with_fewer_groups_takes_over_the_trials_of_the_others(tmp_path: Path) -> None:
    spec = spec_with()
    kill(play(tmp_path, spec, 3, 4, rounds=7))
    resumed = play(tmp_path, spec, 1, 4)
    assert resumed.finished
    alone = tmp_path / "alone"
    alone.mkdir()
    assert table(resumed) == table(play(alone, spec, 1, 4))


def test_a_replaced_worker_is_refused_and_its_round_is_not_lost(tmp_path: Path) -> None:
    spec = spec_with()
    board = Board(tmp_path, spec, 2, 3)
    old, other = (PretendWorker(board, group) for group in (0, 1))
    assert old.report() == {}  # reported, waiting for group 1, then killed
    new = PretendWorker(board, 0)
    assert set(new.at.values()) == {0}
    with pytest.raises(StaleWorkerError):
        old.report()
    assert other.report() == {}
    assert set(new.report()) == {0, 1}


def test_a_group_lost_for_good_fails_its_trials_and_frees_the_others(tmp_path: Path) -> None:
    spec = spec_with()
    board = Board(tmp_path, spec, 2, 3)
    workers = [PretendWorker(board, group) for group in (0, 1)]
    held = set(workers[1].at)
    assert workers[0].report() == {}
    answers = board.lose(1, "no such device")
    assert set(answers) == {0}
    assert all(board.history.trials[number].state == "failed" for number in held)
    assert "no such device" in board.history.trials[min(held)].reason


def test_extending_a_finished_sweep_goes_on_with_its_numbers(tmp_path: Path) -> None:
    spec = spec_with(budget={"trials": 10})
    play(tmp_path, spec, 1, 4).close("finished")
    board = Board(tmp_path, spec, 1, 4)
    board.extend(8)
    board.close("interrupted")
    extended = play(tmp_path, spec, 1, 4)
    assert sorted(extended.history.trials) == list(range(18))
    whole = tmp_path / "whole"
    whole.mkdir()
    assert table(extended) == table(play(whole, spec_with(budget={"trials": 18}), 1, 4))


def test_leaving_keeps_running_trials_running(tmp_path: Path) -> None:
    spec = spec_with()
    board = Board(tmp_path, spec, 1, 4)
    worker = PretendWorker(board, 0)
    board.leave()
    answer = worker.report()[0]
    assert answer.leave
    assert not answer.new
    board.close("interrupted")
    told = history.load(tmp_path)
    assert told.closed == "interrupted"
    running = [t for t in told.trials.values() if t.state == "running"]
    assert len(running) + len(answer.drop) == 4
    assert all(t.updates == 10 for t in running)


def test_the_wall_budget_ends_what_runs_and_asks_no_more(tmp_path: Path) -> None:
    now = [0.0]
    spec = spec_with(budget={"trials": 40, "wall": "60s"})
    board = Board(tmp_path, spec, 1, 4, timer=lambda: now[0])
    worker = PretendWorker(board, 0)
    now[0] = 61.0
    answer = worker.report()[0]
    assert answer.done
    assert sorted(answer.drop) == [0, 1, 2, 3]
    assert any("wall budget" in t.reason for t in board.history.trials.values())
    assert board.finished


def test_a_diverged_trial_counts_as_worst_at_the_rung_it_missed(tmp_path: Path) -> None:
    """Three trials diverge before the rung: the fourth is the best of four and the fifth the worse of two finite."""
    spec = spec_with(space={"lr": SPEC["space"]["lr"]}, budget={"trials": 6})
    board = Board(tmp_path, spec, 1, 6)
    board.attach(0)
    losses = [math.nan, math.nan, math.nan, 2.0, 3.0, 1.0]
    entries = [
        Entry(n, 10, {"valid_loss": x}, x, 0.0, diverged_at=4 if math.isnan(x) else None) for n, x in enumerate(losses)
    ]
    board.report(0, 1, "loop", entries)
    states = [board.history.trials[n].state for n in range(6)]
    assert states == ["diverged", "diverged", "diverged", "running", "stopped", "running"]


def test_a_full_disk_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    spec = spec_with()
    board = Board(tmp_path, spec, 1, 4)
    real, failures = board._journal.append, iter([True, True, False])

    def append(commit):
        if next(failures, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(commit)

    monkeypatch.setattr(board._journal, "append", append)
    slept = []
    monkeypatch.setattr("sweeps.board.time.sleep", slept.append)
    worker = PretendWorker(board, 0)
    assert len(worker.at) == 4
    assert slept == [1.0, 1.0]
    assert len(history.load(tmp_path).trials) == 4


def test_replicates_share_a_point_and_differ_in_their_seed(tmp_path: Path) -> None:
    board = play(tmp_path, spec_with(search={"algorithm": "random", "seed": 3, "seeds": 2}), 2, 5)
    trials = board.history.trials
    assert len(trials) == 40
    for number in range(0, 40, 2):
        first, second = trials[number], trials[number + 1]
        assert (first.params, first.point_id) == (second.params, second.point_id)
        assert (first.replicate, second.replicate) == (0, 1)
        assert first.config["seed"] == {**second.config["seed"], "replicate": 0}
    assert len({trial.point_id for trial in trials.values()}) == 20


def doomed(config: dict) -> str | None:
    """Every net whose learning rate has an odd third digit: as good as any rule to a board."""
    return "its net cannot start" if int(config["method"]["lr"] * 1e6) % 2 else None


def test_skipped_trials_end_before_their_first_update_and_free_their_slots(tmp_path: Path) -> None:
    board = play(tmp_path, spec_with(), 2, 5, doomed=doomed)
    assert board.finished
    trials = board.history.trials.values()
    skipped = [trial for trial in trials if trial.state == "skipped"]
    assert [trial.number for trial in skipped] == [trial.number for trial in trials if doomed(trial.config)]
    assert 5 < len(skipped) < 35
    for trial in skipped:
        assert (trial.updates, trial.work, trial.wall_s, trial.objective, trial.metrics) == (0, 0.0, 0.0, None, {})
        assert trial.reason == trial.doomed == "its net cannot start"
    told = {trial.number: trial.state.name for trial in board._asker._proposers["search"].study.get_trials()}
    assert all(told[trial.number] == "PRUNED" for trial in skipped)


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_skips_do_not_make_results_depend_on_groups_or_crashes(tmp_path: Path, algorithm: str) -> None:
    search = {"algorithm": algorithm, "seed": 3} | ({"grid": {"lr": 8, "mu_max": 2}} if algorithm == "grid" else {})
    spec = spec_with(search=search)
    tables = []
    for index, (groups, slots) in enumerate([(1, 1), (2, 3), (3, 16)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        tables.append(table(play(folder, spec, groups, slots, seed=index, doomed=doomed)))
    for rounds in (1, 4, 9):
        folder = tmp_path / f"killed{rounds}"
        folder.mkdir()
        kill(play(folder, spec, 2, 3, rounds=rounds, doomed=doomed))
        tables.append(table(play(folder, spec, 2, 3, seed=2, doomed=doomed)))
    assert all(other == tables[0] for other in tables)
    assert {"skipped", "complete", "stopped"} <= {row[1] for row in tables[0].values()}


def test_a_skipped_trial_counts_as_the_worst_at_the_first_rung(tmp_path: Path) -> None:
    """Trial 5 is second of the four that train: 6 // 3 lets it pass, as if all had trained; 4 // 3 would not."""
    points = [{"lr": lr, "mu_max": 0.9, "method": "cm", "depth": 1} for lr in (1e-4, 1e-4, 1e-2, 1e-3, 2e-3, 3e-3)]
    spec = spec_with(
        search={"algorithm": "random", "points": points},
        budget={"trials": 6},
        early_stopping={"rungs": [10], "factor": 3, "fork": None},
    )
    folders = [tmp_path / "all", tmp_path / "skipped"]
    passed = []
    for folder, rule in zip(
        folders, (None, lambda config: "dead" if config["method"]["lr"] == 1e-4 else None), strict=True
    ):
        folder.mkdir()
        trials = play(folder, spec, 1, 6, doomed=rule).history.trials.values()
        passed.append([trial.number for trial in trials if trial.promoted])
    assert passed == [[0, 2, 5], [2, 5]]


def test_a_verdict_that_is_only_recorded_travels_with_the_first_report(tmp_path: Path) -> None:
    board = Board(tmp_path, spec_with(), 1, 2)
    attached = board.attach(0)
    entries = [
        Entry(seated.number, 10, {"valid_loss": 1.0}, 1.0, 0.5, init={"diag/x": math.inf}, doomed="dead")
        for seated in attached.trials
    ]
    board.report(0, attached.incarnation, "loop", entries)
    board.close("interrupted")
    told = history.load(tmp_path).trials[0]
    assert (told.doomed, told.metrics[0], told.metrics[10]) == ("dead", {"diag/x": math.inf}, {"valid_loss": 1.0})
    assert told.updates == 10
    assert told.wall_s == 0.5
    assert told.state != "skipped"


def failing(board: Board, spared: Callable[[int], bool]) -> None:
    """One group's trials fail in their first step, but for those that are spared."""
    worker = PretendWorker(board, 0)
    while not worker.gone:
        entries = []
        for number in worker.at:
            if spared(number):
                worker.at[number] += 10
                entries.append(Entry(number, worker.at[number], {"valid_loss": 1.0}, 1.0, 0.1))
            else:
                entries.append(Entry(number, 0, {}, math.nan, 0.0, failed="ValueError: odd"))
        worker.obey(board.report(0, worker.incarnation, "loop", entries)[0])


def test_a_search_of_which_everything_fails_ends_early_and_says_so(tmp_path: Path) -> None:
    board = Board(tmp_path, spec_with(budget={"trials": 500}), 1, 6)
    failing(board, lambda number: False)
    assert board.finished
    assert len(board.history.trials) == 24, "four waves of six: none was asked for after the twentieth had failed"
    assert board.note == (
        "search ended early: all of its first 24 trials failed; musweep retry --failed runs them again"
    )


def test_a_search_of_which_one_trial_in_twenty_trains_goes_on(tmp_path: Path) -> None:
    board = Board(tmp_path, spec_with(budget={"trials": 100}, early_stopping=None), 1, 6)
    failing(board, lambda number: number % 20 == 13)
    assert len(board.history.trials) == 100
    assert board.note == ""
