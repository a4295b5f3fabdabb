"""How busy slots were: the fold of a journal against a twin that walks every second of it, and against theory."""

import random
from pathlib import Path

import pytest

from sweeps.board import Board
from sweeps.busy import Busy, sentence
from sweeps.round import Place
from tests.sweeps.pretend import SPEC, PretendWorker, spec_with

GROUPS, SLOTS = 2, 3
PARTS = ("training", "forking", "measuring", "waiting", "empty", "without")


def record(kind: str, at: float, **more) -> dict:
    return {"type": kind, "time": at, **more}


def report(at: float, group: int, trials: list[int], training: float, forking: float = 0, waited: float = 0) -> dict:
    shared = {"wall_s": training / len(trials), "fork_s": forking / len(trials)}
    return record("report", at, group=group, waited_s=waited, trials=[{"trial": n, **shared} for n in trials])


def ask(at: float, trial: int, group: int, stage: str = "search") -> dict:
    return record("ask", at, trial=trial, group=group, stage=stage)


def fold(records: list[dict]) -> Busy:
    busy = Busy()
    for each in records:
        busy.apply(each)
    return busy


def invented(luck: random.Random) -> list[dict]:
    """A journal of whole seconds: sessions that close or crash, workers that come and die, trials that go on or end."""
    said: list[dict] = []
    held: dict[int, list[int]] = {group: [] for group in range(GROUPS)}
    since: dict[int, int] = {}
    at, number = 0, 0

    def fill(most: int, stage: str) -> None:
        nonlocal number
        for _ in range(luck.randint(0, most)):
            open_ = [group for group in held if len(held[group]) < SLOTS]
            if open_:
                said.append(ask(at, number, group := luck.choice(open_), stage))
                if group in since and not held[group]:
                    since[group] = at
                held[group].append(number)
                number += 1

    for session in range(luck.randint(1, 4)):
        at += luck.randint(0, 5)
        said.append(record("open", at))
        if session and luck.random() < 0.5:
            said.append(record("extend", at, trials=1))
        stage = "search" if luck.random() < 0.8 else "confirm"
        since.clear()
        fill(6, stage)
        for _ in range(luck.randint(0, 14)):
            at += luck.randint(0, 3)
            group = luck.randrange(GROUPS)
            if group not in since:
                said.append(record("attach", at, group=group))
                since[group] = at
            elif luck.random() < 0.1:
                said.append(record("fault", at, group=group, cause="infrastructure", moved=[]))
                del since[group]
            elif held[group]:
                whole = at - since[group]
                training, forking, waiting = (whole * luck.random() / 3 for _ in range(3))
                said.append(report(at, group, held[group], training, forking, waiting))
                since[group] = at
                for trial in [*held[group]]:
                    if luck.random() < 0.4:
                        said.append(record("end", at, trial=trial))
                        held[group].remove(trial)
                fill(3, stage)
        if luck.random() < 0.5:
            said.append(record("close", at))
    return said


def windows(said: list[dict], until: str) -> set[tuple[int, int]]:
    """The seconds of the search, each with the record that it follows: until all was asked for, or had ended."""
    since_more: set[tuple[int, int]] = set()
    last: set[tuple[int, int]] = set()  # those before the last mark
    left: set[int] = set()
    clock = None
    for place, each in enumerate(said):
        if clock is not None:
            since_more |= {(second, place - 1) for second in range(clock, each["time"])}
            clock = each["time"]
        kind = each["type"]
        if kind == "attach" and clock is None:
            clock = each["time"]
        if kind == "ask" and each["stage"] == "search":
            left.add(each["trial"])
            if until == "asked":
                last = set(since_more)
        if kind == "end" and each["trial"] in left:
            left.remove(each["trial"])
            if until == "ended" and not left:
                last = set(since_more)
        if kind in ("open", "close"):
            clock = None
            if until == "ended" and not left:
                since_more = set(last)
        if kind == "extend" and until == "asked":
            since_more = set(last)
    return last if until == "asked" or not left else since_more


def twin(said: list[dict], until: str) -> dict[str, float] | None:
    """Slot-seconds by what became of them, second by second and group by group."""
    found = dict.fromkeys(PARTS, 0.0)
    whole = 0.0
    for _, place in windows(said, until):
        for group in range(GROUPS):
            what = at_second(said, place, group)
            if what is None:
                continue
            whole += SLOTS
            for part, slots in what.items():
                found[part] += slots
    return {part: slots / whole for part, slots in found.items()} if whole else None


def at_second(said: list[dict], place: int, group: int) -> dict[str, float] | None:
    """What became of a group's slots in a second after this record; None if nobody has told of it yet."""
    worker, began = False, 0
    holder: dict[int, int] = {}
    for each in said[: place + 1]:
        kind = each["type"]
        if kind in ("open", "close") or (kind == "fault" and each["group"] == group):
            worker = False
        if kind == "attach" and each["group"] == group:
            worker, began = True, each["time"]
        if kind == "report" and each["group"] == group:
            began = each["time"]
        if kind == "ask":
            if group == each["group"] and group not in holder.values():
                began = max(began, each["time"])
            holder[each["trial"]] = each["group"]
        if kind == "end":
            del holder[each["trial"]]
    if not worker:
        return {"without": SLOTS}
    if group not in holder.values():
        return {"empty": SLOTS}
    for each in said[place + 1 :]:
        if each["type"] in ("open", "close") or (each["type"] == "fault" and each["group"] == group):
            return {"without": SLOTS}
        if each["type"] == "report" and each["group"] == group:
            count, length = len(each["trials"]), each["time"] - began
            sums = {key: sum(entry[key] for entry in each["trials"]) for key in ("wall_s", "fork_s")}
            training, forking, waiting = sums["wall_s"] / length, sums["fork_s"] / length, each["waited_s"] / length
            return {
                "training": count * training, "forking": count * forking, "waiting": count * waiting,
                "measuring": count * (1 - training - forking - waiting), "empty": SLOTS - count,
            }  # fmt: skip
    return None


@pytest.mark.parametrize("seed", range(400))
def test_the_fold_is_what_walking_every_second_gives(seed: int) -> None:
    said = invented(random.Random(seed))
    busy = fold(said)
    for until, shares in (
        ("asked", busy.until_asked(GROUPS, SLOTS)),
        ("ended", busy.until_ended(GROUPS, SLOTS)),
    ):
        expected = twin(said, until)
        if expected is None or shares is None:
            assert expected is None
            assert shares is None
            continue
        assert shares.seconds == len(windows(said, until))
        for part in PARTS:
            assert getattr(shares, part) == pytest.approx(expected[part], abs=1e-9), (until, part)


def test_clocks_set_back_take_nothing_away_and_shares_stay_shares() -> None:
    said = [record("open", 0), ask(0, 0, 0), record("attach", 10, group=0), report(20, 0, [0], 8.0)]
    said += [report(5, 0, [0], 8.0), report(22, 0, [0], 30.0), record("end", 22, trial=0)]
    shares = fold(said).until_ended(1, 1)
    assert shares is not None
    assert shares.seconds == 12
    assert shares.busy == pytest.approx((8 + 2) / 12), "more training than there was time for is cut"
    assert shares.measuring == pytest.approx(2 / 12)


def test_trials_taken_over_do_not_make_more_slots() -> None:
    said = [record("open", 0), *(ask(0, n, n // 2) for n in range(4)), record("attach", 0, group=0)]
    said += [record("attach", 0, group=1), record("fault", 0, group=1, cause="hung", moved=[])]
    said += [record("fault", 10, group=1, cause="hung", moved=[2, 3]), report(20, 0, [0, 1, 2, 3], 20.0)]
    said += [record("end", 20, trial=n) for n in range(4)]
    shares = fold(said).until_ended(2, 2)
    assert shares is not None
    assert (shares.training, shares.without) == (0.5, 0.5)


def timed(folder: Path, trials: int, slots: int, measuring: tuple[float, float]) -> Board:
    """Play a sweep by a clock of our own: a trial trains half a second a round, a group measures as long as told."""
    space = {**SPEC["space"], "lr": {"type": "float", "low": 1e-3, "high": 0.1, "scale": "log"}}
    spec = spec_with(budget={"trials": trials}, early_stopping=None, space=space)
    now = 100.0
    board = Board(folder, spec, 2, slots, clock=lambda: now, timer=lambda: now)
    workers = [PretendWorker(board, group) for group in (0, 1)]
    for worker in workers:
        board.attach(worker.group, worker.incarnation, Place("here", "node", 1, 0.0))
    while not all(worker.gone for worker in workers):
        began = now
        for worker in sorted(workers, key=lambda each: 0.5 * len(each.at) + measuring[each.group]):
            if not worker.gone:
                now = began + 0.5 * len(worker.at) + measuring[worker.group]
                for group, answer in worker.report().items():
                    workers[group].obey(answer)
    return board


def test_a_pretend_sweeps_slots_are_as_busy_as_theory_says(tmp_path: Path) -> None:
    # 20 trials on 2 groups of 4 slots: 9 rounds with 4 trials each, 9 again, and 9 with 2 each.
    board = timed(tmp_path, 20, 4, (0.5, 1.5))
    told = board.history.busy
    asked, ended = told.until_asked(2, 4), told.until_ended(2, 4)
    assert asked is not None
    assert ended is not None
    full, last = 4 * 0.5 + 1.5, 2 * 0.5 + 1.5  # seconds of a round
    assert asked.seconds == pytest.approx(18 * full)
    assert asked.training == asked.busy == pytest.approx(4 * 0.5 / full)
    assert asked.measuring == pytest.approx((0.5 + 1.5) / 2 / full)
    assert asked.waiting == pytest.approx((1.5 - 0.5) / 2 / full)
    assert asked.empty == asked.without == 0
    whole = 18 * full + 9 * last
    assert ended.seconds == pytest.approx(whole)
    assert ended.busy == pytest.approx((18 * 4 * 2.0 + 9 * 2 * 1.0) / (4 * whole))
    assert ended.empty == pytest.approx(9 * 2 * last / (4 * whole))
    spec = {"resolved": {"workers": 2, "group_size": 4}}
    assert sentence(spec, told) == (
        "Slots were 57% busy training until the search's last trial was asked for (63.0 s); the rest: 29% measuring, "
        "storing and deciding, 14% waiting for other groups. Until its last trial ended (85.5 s) they were 47% busy "
        "and 13% empty, as nothing was left to ask for."
    )
    assert not sentence({}, told), "a sweep that has not chosen its groups"


def test_where_all_trials_have_a_slot_at_once_none_is_refilled(tmp_path: Path) -> None:
    told = timed(tmp_path, 8, 4, (0.0, 0.0)).history.busy
    assert told.until_asked(2, 4) is None
    ended = told.until_ended(2, 4)
    assert ended is not None
    assert ended.busy == pytest.approx(1.0)
    assert "none could be refilled" in sentence({"resolved": {"workers": 2, "group_size": 4}}, told)
