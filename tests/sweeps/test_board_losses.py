"""Groups lose their workers, for a while or for long, come back, speak out of turn: the sweep ends all the same."""

import random
from pathlib import Path

import pytest

from sweeps import causes, history, journal
from sweeps.board import Board
from sweeps.round import Place, StaleWorkerError
from sweeps.spec import SweepSpec
from tests.sweeps.pretend import SPEC, PretendWorker, kill, play, spec_with, table
from tests.sweeps.test_board_stages import fates, staged


class Storm:
    """A sweep whose workers die, vanish, stay away and come back at random; time passes as it likes."""

    def __init__(self, folder: Path, spec: SweepSpec, groups: int, slots: int, seed: int) -> None:
        self.folder, self.spec, self.size, self.slots = folder, spec, groups, slots
        self.random, self.now = random.Random(seed), 0.0
        self.done: list[str] = []
        self.open()

    def open(self) -> None:
        self.board = Board(self.folder, self.spec, self.size, self.slots, clock=lambda: 0.0, timer=lambda: self.now)
        self.workers: dict[int, PretendWorker] = {}
        self.stale: list[PretendWorker] = []
        self.waiting: set[int] = set()
        self.over: set[int] = set()

    def deliver(self, answers) -> None:
        for group, answer in answers.items():
            assert group in self.waiting, "an answer to nobody"
            self.waiting.discard(group)
            self.workers[group].obey(answer)
            if self.workers[group].gone:
                del self.workers[group]
                self.over.add(group)

    def attach(self, group: int) -> None:
        self.workers[group] = PretendWorker(self.board, group)
        self.over.discard(group)

    def report(self, group: int) -> None:
        self.waiting.add(group)
        self.deliver(self.workers[group].report())

    def die(self, group: int) -> None:
        self.stale.append(self.workers.pop(group))
        self.waiting.discard(group)
        self.deliver(self.board.fault(group, self.random.choice(["preempted", "memory", "infrastructure"]), "gone"))

    def vanish(self, group: int) -> None:
        """First its beats stop, then its death is known."""
        self.stale.append(self.workers.pop(group))
        self.waiting.discard(group)
        self.board.missing(group, self.now - self.random.uniform(0, 40))
        self.pass_time()
        self.deliver(self.board.fault(group, "hung", "no beat"))

    def speak(self) -> None:
        """A worker that was replaced, or whose group has none, wakes."""
        worker = self.random.choice(self.stale)
        with pytest.raises(StaleWorkerError):
            self.board.report(worker.group, worker.incarnation, "loop", [])

    def pass_time(self) -> None:
        self.now += self.random.choice([1.0, 20.0, 40.0])
        self.deliver(self.board.look())

    def step(self, calm: bool) -> None:
        away = [group for group in range(self.size) if group not in self.workers and group not in self.over]
        ready = [group for group in self.workers if group not in self.waiting]
        able = {"report": ready, "attach": away, "pass_time": [0]}
        if not calm:
            able |= {"die": list(self.workers), "vanish": list(self.workers), "speak": self.stale}
        weights = {"report": 12, "attach": 2, "pass_time": 2, "die": 1, "vanish": 1, "speak": 1}
        names = [name for name in able if able[name]]
        if "report" not in names and "attach" not in names:
            assert self.waiting, "nobody is there and nobody waits"
        name = self.random.choices(names, [weights[name] for name in names])[0]
        self.done.append(name)
        if name in ("pass_time", "speak"):
            getattr(self, name)()
        else:
            getattr(self, name)(self.random.choice(able[name]))

    def play(self, kills: int = 0) -> Board:
        """Stormy at first, then calm, so that it must end."""
        for number in range(3000):
            if len(self.over) == self.size and self.board.finished:
                return self.board
            if kills and number % 70 == 69:
                kills -= 1
                kill(self.board)
                self.open()
            self.step(calm=number > 400)
        raise AssertionError(f"no end: {self.board.waiting()} {self.board.groups()}")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No group is given up, however often it dies."""
    monkeypatch.setattr(causes, "LIMITS", dict.fromkeys(causes.CAUSES, 10**9))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("algorithm", ["random", "qmc", "grid"])
def test_any_losses_in_any_order_leave_the_same_table(tmp_path: Path, algorithm: str) -> None:
    search = {"algorithm": algorithm, "seed": 3}
    if algorithm == "grid":
        search["grid"] = {"lr": 5, "mu_max": 2}
    spec = spec_with(search=search, budget={"trials": 24})
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = table(play(whole, spec, 2, 5))
    moved = returned = 0
    for seed in range(24):
        folder = tmp_path / str(seed)
        folder.mkdir()
        groups, slots = [(2, 5), (3, 2), (4, 3), (1, 7)][seed % 4]
        storm = Storm(folder, spec, groups, slots, seed)
        board = storm.play(kills=seed % 3)
        assert table(board) == expected, seed
        records = journal.read(folder / "journal.jsonl")
        ends = [record["trial"] for record in records if record["type"] == "end"]
        assert sorted(ends) == list(range(len(expected))), "each trial ends once"
        moved += sum(len(record["moved"]) for record in records if record["type"] == "fault")
        returned += storm.done.count("attach")
        kill(board)
    assert moved > 50
    assert returned > 100


@pytest.mark.usefixtures("patient")
def test_losses_change_nothing_of_what_is_confirmed(tmp_path: Path) -> None:
    spec = staged(budget={"trials": 12})
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = fates(play(whole, spec, 2, 3))
    for seed in range(4, 14):
        folder = tmp_path / str(seed)
        folder.mkdir()
        board = Storm(folder, spec, 1 + seed % 5, [5, 2, 3, 7, 1][seed % 5], seed).play(kills=seed % 4)
        assert fates(board) == expected, seed
        kill(board)


@pytest.mark.usefixtures("patient")
def test_in_order_of_arrival_every_trial_ends_once(tmp_path: Path) -> None:
    spec = spec_with(early_stopping={**SPEC["early_stopping"], "order": "arrival"}, budget={"trials": 24})
    for seed in range(30):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kill(Storm(folder, spec, 3, 3, seed).play(kills=seed % 2))
        ends = [r["trial"] for r in journal.read(folder / "journal.jsonl") if r["type"] == "end"]
        assert sorted(ends) == list(range(24))


def three(folder: Path, **changes) -> tuple[Board, list[PretendWorker], list[float]]:
    now = [0.0]
    board = Board(folder, spec_with(**changes), 3, 2, timer=lambda: now[0])
    return board, [PretendWorker(board, group) for group in range(3)], now


def test_orphans_are_trained_to_the_rounds_report_and_only_they(tmp_path: Path) -> None:
    board, workers, now = three(tmp_path, early_stopping=None)
    for worker in workers:
        answers = worker.report()
    for group, answer in answers.items():
        workers[group].obey(answer)
    orphans = set(workers[2].at)
    assert workers[0].report() == {}
    board.fault(2, "infrastructure", "its node died")
    now[0] = 29.0
    assert board.look() == {}
    now[0] = 31.0
    answers = board.look()  # group 0 waits, so it has its share at once; group 1 has its own with its report
    assert answers[0].only_new
    assert {seated.update for seated in answers[0].new} == {10}
    workers[0].obey(answers[0])
    interim = workers[1].report()[1]
    assert interim.only_new
    assert {seated.number for answer in (answers[0], interim) for seated in answer.new} == orphans
    workers[1].obey(interim)
    assert board.history.trials[min(orphans)].updates == 10
    assert workers[0].report() == {}
    settled = workers[1].report()
    assert set(settled) == {0, 1}
    assert all(board.history.trials[number].updates == 20 for number in orphans)
    fault = [r for r in journal.read(tmp_path / "journal.jsonl") if r["type"] == "fault"][-1]
    assert (fault["group"], fault["cause"], set(fault["moved"])) == (2, "infrastructure", orphans)


def test_what_a_group_had_reported_before_it_was_lost_is_not_trained_again(tmp_path: Path) -> None:
    board, workers, now = three(tmp_path)
    held = set(workers[2].at)
    workers[0].report()
    workers[2].report()
    board.fault(2, "preempted", "gone")
    now[0] = 60.0
    assert board.look() == {}, "others hold them now and learn of it when the round is settled"
    answers = workers[1].report()
    news = {seated.number: seated.update for answer in answers.values() for seated in answer.new if seated.update}
    running = {n for n in held if board.history.trials[n].state == "running"}
    assert news == dict.fromkeys(running, 10)


def test_a_group_that_comes_back_has_what_others_hold_beyond_their_slots(tmp_path: Path) -> None:
    board, workers, now = three(tmp_path, early_stopping=None, budget={"trials": 6})
    workers[0].report()
    board.fault(2, "infrastructure", "gone")
    now[0] = 31.0
    workers[0].obey(board.look()[0])
    workers[1].obey(workers[1].report()[1])
    back = PretendWorker(board, 2)
    assert back.at == {}
    assert back.report() == {}
    workers[0].report()
    answers = workers[1].report()
    assert [seated.update for seated in answers[2].new] == [10, 10]
    for group, answer in answers.items():
        [*workers[:2], back][group].obey(answer)
    assert [len(worker.at) for worker in (*workers[:2], back)] == [2, 2, 2]


def test_new_trials_go_to_groups_that_have_a_worker(tmp_path: Path) -> None:
    board, workers, now = three(tmp_path, budget={"trials": 20})
    board.fault(2, "infrastructure", "gone")
    workers[0].report()
    now[0] = 31.0
    answers = board.look()
    while not all(worker.gone for worker in workers[:2]):
        for group in (0, 1):
            if group in answers:
                workers[group].obey(answers.pop(group))
            if not workers[group].gone and group not in board._waiting:
                answers |= workers[group].report()
    asked = [r for r in journal.read(tmp_path / "journal.jsonl") if r["type"] == "ask"]
    assert {record["group"] for record in asked[6:]} == {0, 1}


@pytest.mark.parametrize(("cause", "deaths"), [("bug", 3), ("hung", 3), ("infrastructure", 10), ("preempted", 10)])
def test_a_group_is_given_up_after_so_many_deaths_in_a_row(tmp_path: Path, cause: str, deaths: int) -> None:
    board, workers, _ = three(tmp_path)
    held = set(workers[0].at)
    for _ in range(deaths - 1):
        assert board.fault(0, cause, "again") == {}
        assert board.lost == {}
        board.attach(0)
    board.fault(0, cause, "again")
    assert board.lost == {0: "again"}
    assert {board.history.trials[n].reason for n in held} == {"worker lost: again"}


def test_a_group_that_gets_something_done_is_restarted_for_ever(tmp_path: Path) -> None:
    board, workers, _ = three(tmp_path, training={"updates": 90, "reports": 45, "batch": 10}, early_stopping=None)
    for _ in range(40):
        for _ in range(2):
            board.fault(0, "bug", "now and then")
            workers[0] = PretendWorker(board, 0)
        for worker in workers:
            answers = worker.report()
        for group, answer in answers.items():
            workers[group].obey(answer)
    assert board.lost == {}
    assert board.groups()[0]["restarts"] == 80


def test_memory_halves_what_a_group_may_have_at_once_and_is_remembered(tmp_path: Path) -> None:
    spec = spec_with()
    board = Board(tmp_path, spec, 1, 7)
    board.attach(0)
    sizes = []
    for _ in range(4):
        board.fault(0, "memory", "killed")
        sizes.append(board.attach(0).resident)
    assert sizes == [3, 1, 1, 1]
    kill(board)
    assert Board(tmp_path, spec, 1, 7).attach(0).resident == 1


def test_a_bug_is_looked_for_one_by_one(tmp_path: Path) -> None:
    board, _, _ = three(tmp_path)
    assert not board.attach(0).alone
    board.fault(0, "bug", "ValueError: odd")
    assert board.attach(0).alone
    board.fault(0, "infrastructure", "gone")
    assert not board.attach(0).alone


def test_a_trial_that_kills_its_workers_is_found_and_fails_alone(tmp_path: Path) -> None:
    """Like a segmentation fault: the process dies whenever it trains that trial, however it trains it."""
    board, workers, _ = three(tmp_path)
    held = sorted(workers[0].at)
    poison = held[0]
    for death in range(5):
        attached = board.attach(0)
        assert attached.alone == (death >= 3)
        if attached.alone:
            board.trying(0, attached.incarnation, poison)
        board.fault(0, "infrastructure", "signal 9")
    trial = board.history.trials[poison]
    assert (trial.state, trial.reason) == ("failed", "its worker died twice when it trained alone: signal 9")
    assert board.lost == {}
    assert sorted(seated.number for seated in board.attach(0).trials) == held[1:]
    with pytest.raises(StaleWorkerError):
        board.trying(0, 1, held[1])


def test_no_trial_is_blamed_for_one_death_of_its_machine(tmp_path: Path) -> None:
    board, workers, _ = three(tmp_path)
    for death in range(9):
        attached = board.attach(0)
        if attached.alone:
            board.trying(0, attached.incarnation, 1000 + death)  # always another one
        board.fault(0, "infrastructure", "gone")
    assert {board.history.trials[number].state for number in workers[0].at} == {"running"}


def test_nobody_waits_for_an_absent_group_when_all_leave(tmp_path: Path) -> None:
    board, workers, _ = three(tmp_path)
    workers[0].report()
    board.fault(2, "infrastructure", "gone")
    answers = board.leave()
    assert {group: answer.leave for group, answer in answers.items()} == {0: True}
    assert not board.over
    assert {group: answer.leave for group, answer in workers[1].report().items()} == {1: True}
    assert board.over
    kill(board)
    assert {t.state for t in history.load(tmp_path).trials.values()} == {"running"}


def test_groups_and_what_is_waited_for_in_words(tmp_path: Path) -> None:
    now = [0.0]
    board = Board(tmp_path, spec_with(), 3, 2, timer=lambda: now[0])
    place = Place("host-a", "node", 4711, 1.0, "cuda:2")
    attached = board.attach(0, None, place)
    board.attach(1, None, Place("host-b", "node", 4712, 1.0))
    assert board.waiting("1 GPU, 0 free") == "no worker for group 2: 1 GPU, 0 free"
    worker = object.__new__(PretendWorker)
    worker.__dict__ |= {"board": board, "group": 0, "incarnation": attached.incarnation, "only": None}
    worker.at, worker.seats = {s.number: 0 for s in attached.trials}, {s.number: s for s in attached.trials}
    worker.doomed = lambda config: None
    worker.report()
    now[0] = 14.0
    assert board.waiting() == "waiting for group 1 on host-b, 14 s", "group 2 is just starting"
    now[0] = 31.0
    assert board.waiting() == "no worker for group 2; waiting for group 1 on host-b, 31 s"
    board.lose(2, "no GPU")
    assert board.groups() == [
        {"group": 0, "state": "placed", "host": "host-a", "device": "cuda:2", "pid": 4711, "trials": 2,
         "since_report_s": 31.0, "restarts": 0},
        {"group": 1, "state": "placed", "host": "host-b", "device": "cpu", "pid": 4712, "trials": 2,
         "since_report_s": None, "restarts": 0},
        {"group": 2, "state": "lost", "host": None, "device": None, "pid": None, "trials": 0,
         "since_report_s": None, "restarts": 0},
    ]  # fmt: skip
    said = [r for r in journal.read(tmp_path / "journal.jsonl") if r["type"] == "attach"]
    assert {key: said[0][key] for key in ("group", "incarnation", "host", "node", "pid", "device")} == {
        "group": 0, "incarnation": 1, "host": "host-a", "node": "node", "pid": 4711, "device": "cuda:2",
    }  # fmt: skip
