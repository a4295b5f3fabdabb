"""Sweeps of several stages, played with pretend workers: what comes after the search, whoever dies when."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweeps import history, journal, stages
from sweeps.board import Board
from sweeps.spec import SweepSpec
from tests.sweeps.pretend import SPEC, PretendWorker, kill, play, spec_with, table

CONFIRM: dict[str, Any] = {
    "confirm": {"top": 2, "seeds": 3},
    "baselines": [{"kind": "hf", "share": 0.6}, {"kind": "hf", "name": "clock", "share": 0.1, "match": "wall"}],
}
FLAT = {name: SPEC["space"][name] for name in ("lr", "mu_max", "method")}
"""A space in which all nets are alike, so that HF need not wait for the best one."""


def staged(**changes: Any) -> SweepSpec:
    stopping = {**SPEC["early_stopping"], "compare_within": []}
    return spec_with(**{"budget": {"trials": 20}, "space": FLAT, "early_stopping": stopping, **CONFIRM, **changes})


def fates(board_or_folder: Board | Path) -> dict[int, tuple[Any, ...]]:
    """Everything about each trial but the group that trained it."""
    told = board_or_folder.history if isinstance(board_or_folder, Board) else history.load(board_or_folder)
    rest = table(board_or_folder)
    return {n: (t.stage, t.point_id, t.replicate, t.config, *rest[n]) for n, t in told.trials.items()}


def in_order(board: Board) -> list[str]:
    """The stages of a sweep's trials, in order of number, each named once where it begins."""
    found = [trial.stage for trial in board.history.trials.values()]
    return [stage for i, stage in enumerate(found) if i == 0 or stage != found[i - 1]]


def test_the_best_points_and_hfs_are_confirmed_on_seeds_of_their_own(tmp_path: Path) -> None:
    spec = staged()
    board = play(tmp_path, spec, 2, 3)
    assert board.finished
    trials = board.history.trials
    assert Counter(t.stage for t in trials.values()) == {
        "search": 20, "search:hf": 12, "search:clock": 2, "confirm": 6, "confirm:hf": 3, "confirm:clock": 3,
    }  # fmt: skip
    assert in_order(board)[:3] == ["search", "search:hf", "search:clock"]
    confirmed = [t for t in trials.values() if stages.is_confirm(t.stage)]
    complete = sorted((t for t in trials.values() if t.stage == "search" and t.objective is not None and
                       t.state == "complete"), key=lambda t: t.objective)  # fmt: skip
    best = [t.point_id for t in complete[:2]]
    hf, clock = (min((t for t in trials.values() if t.stage == f"search:{name}"), key=lambda t: t.objective).point_id
                 for name in ("hf", "clock"))  # fmt: skip
    assert [t.point_id for t in confirmed] == [*best, hf, clock] * 3  # the first seed of each before a second
    assert [t.replicate for t in confirmed] == list(range(12))
    assert all(t.config["seed"] == {"sweep": 3, "stage": "confirm", "replicate": t.replicate} for t in confirmed)
    assert {t.state for t in confirmed} == {"complete"}
    assert [t.updates for t in confirmed] == [90, 90, 90, 45] * 3  # an update of hf takes a second, others half of one
    searched = {t.point_id: t.params for t in trials.values() if not stages.is_confirm(t.stage)}
    assert all(t.params == searched[t.point_id] for t in confirmed)
    assert not any(t.stopped_at_rung or t.promoted for t in trials.values() if t.stage != "search")


def test_nothing_depends_on_groups_slots_or_who_is_faster(tmp_path: Path) -> None:
    found = []
    for index, (groups, slots) in enumerate([(1, 1), (1, 7), (2, 3), (3, 16), (5, 1)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        found.append(fates(play(folder, staged(), groups, slots, seed=index)))
    assert all(other == found[0] for other in found)
    assert any(stage == "search:hf" for stage, *_ in found[0].values())


@pytest.mark.parametrize("order", ["number", "arrival"])
def test_a_driver_killed_after_any_record_resumes_to_the_same_end(tmp_path: Path, order: str) -> None:
    """Each prefix of the journal's commits, whole or with the next one torn, is a folder that a kill can leave."""
    stopping = {**SPEC["early_stopping"], "order": order, "compare_within": []}
    spec = staged(early_stopping=stopping, budget={"trials": 9})
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = fates(play(whole, spec, 2, 3))
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines), 1 if order == "number" else 4):
        folder = tmp_path / str(kept)
        folder.mkdir()
        torn = lines[kept][: len(lines[kept]) // 2] if kept % 2 else b""
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:kept]) + torn)
        kill(play(folder, spec, 2, 3, rounds=3, seed=kept))  # killed again, soon after
        resumed = play(folder, spec, 2, 3, seed=kept + 1)
        assert resumed.finished
        ends = [record["trial"] for record in journal.read(folder / "journal.jsonl") if record["type"] == "end"]
        assert sorted(ends) == list(resumed.history.trials), "each trial ends once"
        if order == "number":
            assert fates(resumed) == expected
        else:  # who is stopped depends on who came first; what follows from it does not
            told = resumed.history.trials.values()
            points = {t.point_id for t in told if t.stage == "search" and t.state == "complete"}
            assert Counter(t.stage for t in told)["confirm"] == 3 * min(2, len(points))


def test_a_resume_with_other_groups_ends_alike(tmp_path: Path) -> None:
    spec = staged(budget={"trials": 9})
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = fates(play(whole, spec, 1, 4))
    for rounds in (2, 9, 14, 20, 26):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        kill(play(folder, spec, 3, 4, rounds=rounds))
        assert fates(play(folder, spec, 2, 1)) == expected


def test_a_finished_sweep_asks_for_nothing_more(tmp_path: Path) -> None:
    play(tmp_path, staged(), 2, 3).close("finished")
    before = journal.read(tmp_path / "journal.jsonl")
    board = play(tmp_path, staged(), 2, 3)
    board.close("finished")
    assert [record["type"] for record in journal.read(tmp_path / "journal.jsonl")[len(before) :]] == ["open", "close"]


def test_more_trials_are_searched_and_what_has_become_best_is_confirmed_too(tmp_path: Path) -> None:
    spec = staged(budget={"trials": 5}, early_stopping=None)
    first = play(tmp_path, spec, 2, 3)
    first.close("finished")
    old = {t.point_id for t in first.history.trials.values() if t.stage == "confirm"}
    board = Board(tmp_path, spec, 2, 3)
    board.extend(15)
    board.close("interrupted")
    board = play(tmp_path, spec, 2, 3)
    assert board.finished
    trials = board.history.trials.values()
    whole = tmp_path / "whole"
    whole.mkdir()
    at_once = play(whole, staged(early_stopping=None), 2, 3).history.trials.values()
    for name in ("search", "search:hf", "search:clock"):  # the same search as if it had never stopped
        assert [(t.params, t.state) for t in trials if t.stage == name] == [
            (t.params, t.state) for t in at_once if t.stage == name
        ]
    begun = Counter((t.stage, t.point_id) for t in trials if stages.is_confirm(t.stage))
    assert set(begun.values()) == {3}
    assert {t.point_id for t in at_once if t.stage == "confirm"} <= {point for _, point in begun}
    assert old != {t.point_id for t in at_once if t.stage == "confirm"}, "else this tests nothing"
    replicates = [t.replicate for t in trials if stages.is_confirm(t.stage)]
    assert replicates == list(range(len(replicates)))


def test_a_baseline_that_the_spec_is_given_later_is_searched_and_confirmed(tmp_path: Path) -> None:
    """As `musweep confirm` does it: first nothing is confirmed, then the best points are, then HF is too."""
    play(tmp_path, staged(confirm=None, baselines=[]), 2, 3).close("finished")
    first = play(tmp_path, staged(baselines=[]), 2, 3)
    assert first.sizes == {"search": 20, "confirm": 6}
    first.close("finished")
    before = fates(tmp_path)
    board = play(tmp_path, staged(), 2, 3)
    assert board.finished
    assert in_order(board)[:4] == ["search", "confirm", "search:hf", "search:clock"]
    assert {n: row for n, row in fates(board).items() if n < 26} == before
    whole = tmp_path / "whole"
    whole.mkdir()
    at_once = play(whole, staged(), 2, 3).history.trials.values()
    for name in ("search:hf", "search:clock", "confirm:hf", "confirm:clock"):
        mine, theirs = ([(t.params, t.updates) for t in trials if t.stage == name]
                        for trials in (board.history.trials.values(), at_once))  # fmt: skip
        assert mine == theirs


def test_hf_waits_for_the_best_points_net_where_nets_are_searched(tmp_path: Path) -> None:
    spec = staged(space=SPEC["space"])
    board = play(tmp_path, spec, 3, 4)
    trials = board.history.trials.values()
    best = min((t for t in trials if t.stage == "search" and t.state == "complete"), key=lambda t: t.objective)
    hf = [t for t in trials if stages.baseline_of(t.stage) == "hf"]
    assert {t.params["depth"] for t in hf} == {best.params["depth"]}
    assert {tuple(t.config["net"]["widths"]) for t in hf} == {tuple(best.config["net"]["widths"])}
    records = journal.read(tmp_path / "journal.jsonl")
    kinds = [(r["type"], stages.is_search(r.get("stage", "")), r.get("trial")) for r in records]
    last_end = max(i for i, (kind, _, n) in enumerate(kinds) if kind == "end" and n < 20)
    assert min(i for i, (kind, own, _) in enumerate(kinds) if kind == "ask" and not own) > last_end
    other = tmp_path / "other"
    other.mkdir()
    assert fates(play(other, spec, 1, 2)) == fates(board)


def test_a_sweep_with_nothing_to_confirm_ends_and_says_so(tmp_path: Path) -> None:
    spec = staged(space={"lr": {"type": "float", "low": 0.6, "high": 1.0}}, budget={"trials": 3})
    board = play(tmp_path, spec, 2, 2)
    assert board.finished
    assert board.note == "nothing to confirm of search: no trial of it is complete"
    board.close("finished")
    told = history.load(tmp_path)
    assert (told.closed, told.note) == ("finished", board.note)
    assert Counter(t.stage for t in told.trials.values()) == {
        "search": 3, "search:hf": 2, "search:clock": 1, "confirm:hf": 3, "confirm:clock": 3,
    }  # fmt: skip


def test_hf_on_the_best_points_net_is_left_out_where_there_is_no_best_point(tmp_path: Path) -> None:
    spec = staged(space={"lr": {"type": "float", "low": 0.6, "high": 1.0}, "depth": [1, 2]}, budget={"trials": 3})
    board = play(tmp_path, spec, 2, 2)
    assert board.finished
    assert {t.stage for t in board.history.trials.values()} == {"search"}
    assert board.note.count("no trial of it is complete") == 3


def test_the_wall_budget_ends_the_searches_and_what_was_found_is_confirmed(tmp_path: Path) -> None:
    """The third round finds the time used: what runs is stopped; trials that are complete by then are confirmed."""
    now = [0.0]
    spec = staged(
        budget={"trials": 40, "wall": "60s"}, early_stopping=None, training={"updates": 20, "reports": 2, "batch": 10}
    )
    board = Board(tmp_path, spec, 1, 4, timer=lambda: now[0])
    worker = PretendWorker(board, 0)
    for _ in range(3):
        worker.obey(worker.report()[0])
    now[0] = 61.0
    while not worker.gone:
        worker.obey(worker.report()[0])
    assert board.finished
    trials = board.history.trials.values()
    assert Counter((t.stage, t.state) for t in trials if t.stage != "search") == {("confirm", "complete"): 6}
    assert all(t.reason.startswith("wall budget") for t in trials if t.state == "stopped")
    board.close("finished")
    again = Board(tmp_path, spec, 1, 4, timer=lambda: now[0])  # a clock that starts anew must not search again
    assert PretendWorker(again, 0).report()[0].done


def test_the_searchs_time_leaves_a_baseline_its_own(tmp_path: Path) -> None:
    """Of 60 s a baseline with a share of .5 is left 20: the sweep's own search of 1,000 trials ends at 40."""
    now = [0.0]
    spec = staged(
        budget={"trials": 1000, "wall": "60s"}, early_stopping=None, confirm={"top": 1, "seeds": 2},
        training={"updates": 20, "reports": 5, "batch": 10}, baselines=[{"kind": "hf", "share": 0.5}],
    )  # fmt: skip
    board = Board(tmp_path, spec, 1, 4, timer=lambda: now[0])
    worker = PretendWorker(board, 0)
    for seconds, stage in ((39.9, "search"), (40.1, "search:hf"), (59.9, "search:hf"), (60.1, "confirm")):
        for _ in range(3):
            worker.obey(worker.report()[0])
        now[0] = seconds
        worker.obey(worker.report()[0])
        running = {t.stage for t in board.history.trials.values() if t.state == "running"}
        assert {stage} == ({"confirm"} if all(map(stages.is_confirm, running)) else running)
    while not worker.gone:
        worker.obey(worker.report()[0])
    trials = board.history.trials.values()
    assert {"confirm", "confirm:hf"} == {t.stage for t in trials if stages.is_confirm(t.stage)}
    stopped = {t.reason for t in trials if t.stage == "search" and t.state == "stopped"}
    assert stopped == {"wall budget of 60 s used, but for what search:hf shall have"}


def test_a_group_without_trials_waits_for_the_next_stage_and_leaves_when_told(tmp_path: Path) -> None:
    """One trial to search and two workers: the second waits, gets its share of what is confirmed, or leaves."""
    spec = staged(budget={"trials": 1}, early_stopping=None, confirm={"top": 1, "seeds": 4}, baselines=[])
    board = Board(tmp_path, spec, 2, 2)
    busy, idle = PretendWorker(board, 0), PretendWorker(board, 1)
    assert idle.report() == {}
    for _ in range(8):
        assert set(busy.report()) == {0}
    answers = busy.report()
    assert {group: len(answer.new) for group, answer in answers.items()} == {0: 2, 1: 2}
    assert not any(answer.done for answer in answers.values())
    kill(board)
    other = tmp_path / "other"
    other.mkdir()
    board = Board(other, spec, 2, 2)
    busy, idle = PretendWorker(board, 0), PretendWorker(board, 1)
    idle.report()
    board.leave()
    assert {group: answer.leave for group, answer in busy.report().items()} == {0: True, 1: True}


def test_a_group_that_is_given_trials_before_it_says_that_it_has_none(tmp_path: Path) -> None:
    spec = staged(budget={"trials": 1}, early_stopping=None, confirm={"top": 1, "seeds": 4}, baselines=[])
    board = Board(tmp_path, spec, 2, 2)
    busy, late = PretendWorker(board, 0), PretendWorker(board, 1)
    for _ in range(9):
        answers = busy.report()
        busy.obey(answers[0])
    assert set(answers) == {0}
    assert busy.report() == {}  # a round, which the late one's trials belong to
    (answer,) = late.report().values()
    late.obey(answer)
    assert len(late.at) == 2
    assert set(late.report()) == {0, 1}


def test_a_group_lost_while_others_wait_sets_them_free(tmp_path: Path) -> None:
    spec = staged(budget={"trials": 2}, early_stopping=None, confirm={"top": 1, "seeds": 2}, baselines=[])
    board = Board(tmp_path, spec, 3, 1)
    workers = [PretendWorker(board, group) for group in range(3)]
    assert workers[2].report() == {}
    for _ in range(8):
        workers[0].report()
        workers[1].report()
    assert workers[0].report() == {}
    answers = board.lose(1, "gone")  # the other's trial is complete, and is confirmed
    assert {group: [seated.stage for seated in answer.new] for group, answer in answers.items()} == {
        0: ["confirm"], 2: ["confirm"],
    }  # fmt: skip
    assert board.lose(0, "gone") == {}
    answers = board.lose(2, "gone")
    assert answers == {}
    assert board.finished


def test_a_trainer_of_the_users_own_is_confirmed_too(tmp_path: Path) -> None:
    from sweeps.spec import parse

    spec = parse({"trainer": "nowhere:train", "objective": "loss", "space": {"a": [1, 2, 3]}, "budget": {"trials": 3},
                  "search": {"algorithm": "grid"}, "confirm": {"top": 1, "seeds": 2}})  # fmt: skip
    board = Board(tmp_path, spec, 1, 1)
    from sweeps.round import Entry

    attached, end = board.attach(0), spec.training.updates
    seated = attached.trials
    for _ in range(5):
        number, value = seated[0].number, float(seated[0].config["params"]["a"])
        answer = board.report(0, attached.incarnation, "own", [Entry(number, end, {"loss": value}, value, 1.0)])[0]
        seated = answer.new
    assert answer.done
    told = [(t.stage, t.params["a"], t.replicate, t.config["seed"]["stage"]) for t in board.history.trials.values()]
    assert told[3:] == [("confirm", 1, 0, "confirm"), ("confirm", 1, 1, "confirm")]


def test_confirmed_trials_train_in_as_few_groups_as_they_fit_in(tmp_path: Path) -> None:
    """12 of them, two workers: 6 each, though the search had 2 slots; fewer where memory or the user says so."""
    wide = {"model": {"depth": 1, "width": 30_000}}  # 30,000 x 74 weights in 10 arrays of 4 bytes: 5 fit in 512 MiB
    cases = [({}, 6), ({"search": {"algorithm": "random", "seed": 3, "group_size": 2}}, 2), (wide, 5)]
    for index, (changes, expected) in enumerate(cases):
        folder = tmp_path / str(index)
        folder.mkdir()
        spec = staged(
            budget={"trials": 4}, early_stopping=None, confirm={"top": 4, "seeds": 3}, baselines=[], **changes
        )
        board, most = Board(folder, spec, 2, 2), 0
        workers = [PretendWorker(board, group) for group in range(2)]
        while not all(worker.gone for worker in workers):
            answers = [worker.report() for worker in workers if not worker.gone][-1]
            for group, answer in answers.items():
                workers[group].obey(answer)
            held = [len(worker.at) for worker in workers]
            most = max(most, *held)
        assert most == expected
        assert board.finished
