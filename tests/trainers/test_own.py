"""A user's function as a trial: its thread, its reports, what is kept of it."""

import collections
import threading

import numpy as np
import pytest
import torch

from trainers import own
from trainers.checkpoint import DamagedStateError, pack
from trainers.config import SeedConfig
from trainers.own import OwnConfig, OwnGroup, OwnState, Trial


def config(number: int = 0, updates: int = 6, **params: object) -> OwnConfig:
    return OwnConfig(number, "some:train", params, updates, SeedConfig(3))


def descend(trial: Trial) -> None:
    """Gradient descent on x^2 / 2 from 1: x = (1 - lr)^update, exactly so in any number of parts."""
    x = trial.state["x"] if trial.state else torch.ones(1, dtype=torch.float64)
    for update in range(trial.start + 1, trial.updates + 1):
        x -= trial.params["lr"] * x
        if trial.due(update):
            trial.report(update, state={"x": x}, loss=x)


def group(function=descend, **options) -> OwnGroup:
    return OwnGroup(function, ["loss"], reports=(2, 4, 6), **options)


def test_a_function_trains_only_when_it_is_let_go_on() -> None:
    seen: list[int] = []

    def train(trial: Trial) -> None:
        for update in trial.reports:
            seen.append(update)
            trial.report(update, loss=1 / update)

    held = group(train)
    held.add(config())
    assert seen == []
    for update in (2, 4):
        said = held.next(0)
        assert said.last is not None
        assert (said.last.update, said.last.metrics, seen[-1]) == (update, {"loss": 1 / update}, update)
        assert not said.returned
    said = held.next(0)
    assert said.returned
    assert said.last is not None
    assert said.last.update == 6
    held.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trial ")]


def test_a_stopped_function_ends_in_its_report_and_cleans_up() -> None:
    told: list[str] = []

    def train(trial: Trial) -> None:
        try:
            for update in trial.reports:
                trial.report(update, loss=0.0)
        except Exception:  # a careless handler must not keep the trial alive
            told.append("swallowed")
        finally:
            told.append(f"cleaned up at {update}")

    held = group(train)
    held.add(config())
    held.next(0)
    held.remove(0)
    assert told == ["cleaned up at 2"]
    with pytest.raises(KeyError):
        held.next(0)


def test_params_seed_and_the_rest_are_the_trials() -> None:
    given: list[Trial] = []
    draws: list[tuple[float, float]] = []

    def train(trial: Trial) -> None:
        given.append(trial)
        draws.append((float(torch.rand(())), float(np.random.rand())))
        trial.report(6, loss=0.0)

    held = OwnGroup(train, ["loss"], (3, 6), (3,), device="cpu")
    for number in (4, 5):
        plain = config(number, lr=0.5, name="wide").to_dict()
        held.add(OwnConfig.from_dict(plain))
        held.next(number)
    trial = given[0]
    assert (trial.number, dict(trial.params), trial.updates) == (4, {"lr": 0.5, "name": "wide"}, 6)
    assert (trial.reports, trial.rungs, trial.start, trial.state) == ((3, 6), (3,), 0, None)
    assert trial.seed == SeedConfig(3).stream("trainer") == given[1].seed
    assert draws[0] == draws[1], "unseeded draws are a function of the trial's seed too"
    assert [trial.due(update) for update in range(1, 8)] == [False, False, True, False, False, True, False]


def test_a_function_that_goes_on_from_its_state_ends_where_it_would_have() -> None:
    whole = group()
    whole.add(config(lr=0.25))
    for _ in range(3):
        said = whole.next(0)
    assert said.last is not None
    assert said.last.metrics["loss"] == 0.75**6
    first = group()
    first.add(config(lr=0.25))
    first.next(0)
    kept = first.state(0)
    assert kept is not None
    stored = own.unpack(pack({0: kept}))[0]
    first.close()
    second = group()
    second.add(config(lr=0.25), stored)
    second.catch_up(0, 4)  # the journal has the report at 4, the state is of 2
    said = second.next(0)
    assert said.last is not None
    assert (said.last.update, said.last.metrics["loss"], said.returned) == (6, 0.75**6, True)


def test_without_a_state_reports_that_were_heard_pass_again_unheard() -> None:
    held = group()
    held.add(config(lr=0.5))
    held.catch_up(0, 2)
    said = held.next(0)
    assert said.last is not None
    assert (said.last.update, said.last.metrics["loss"]) == (4, 0.5**4)
    assert OwnState.of(1, {"x": 1}).update == 1


def test_a_state_is_what_it_was_at_its_report_only() -> None:
    def train(trial: Trial) -> None:
        trial.report(2, state={"x": torch.zeros(1)}, loss=1.0)
        trial.report(4, loss=1.0)

    held = group(train)
    held.add(config())
    held.next(0)
    assert held.state(0) is not None
    held.next(0)
    assert held.state(0) is None, "no state came with this report, and the one before has moved on"


def test_a_return_before_the_end_is_an_end() -> None:
    held = group(lambda trial: trial.report(3, loss=7.0))
    held.add(config())
    assert not held.next(0).returned
    said = held.next(0)
    assert said.returned
    assert said.last is not None
    assert said.last.update == 3


@pytest.mark.parametrize(
    ("train", "line"),
    [
        (lambda trial: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda trial: None, "returned without a report"),
        (lambda trial: exit(3), "SystemExit: 3"),
        (
            lambda trial: trial.report(2, error=1.0, accuracy=0.5),
            "ReportError: report at update 2: gives error, accuracy, but the spec judges trials by loss",
        ),
        (lambda trial: trial.report(2, loss=[1]), "ReportError: metric loss=[1]: not a number"),
        (lambda trial: trial.report(2, loss=1, **{"a%": 1}), "ReportError: metric 'a%': a name is of letters, digits"),
        (lambda trial: trial.report(0, loss=1), "ReportError: report at update 0: updates count from 1; the next"),
        (lambda trial: trial.report(2.5, loss=1), "ReportError: report at update 2.5: not a whole number"),
        (lambda trial: trial.report(7, loss=1), "ReportError: report at update 7: the trial ends at 6"),
        (
            lambda trial: [trial.report(update, loss=1) for update in (3, 3)],
            "ReportError: report at update 3: update 3 has been reported; the next report comes after it",
        ),
        (
            lambda trial: trial.report(5, loss=1),
            "ReportError: report at update 5: trials are compared at update 4, which was not reported; report wherever",
        ),
        (
            lambda trial: trial.report(1, state={"a": [1, np.zeros(2)]}, loss=1),
            "ReportError: state['a'][1] is a numpy.ndarray: tensors, numbers, text and containers of them can be kept; "
            "give torch.from_numpy(it)",
        ),
        (
            lambda trial: trial.report(1, state=threading.Lock(), loss=1),
            "ReportError: state is a _thread.lock: tensors",
        ),
    ],
)
def test_what_goes_wrong_in_a_function_is_its_trials_failure_in_one_line(train, line: str) -> None:
    held = OwnGroup(train, ["loss"], (2, 4, 6), (4,))
    held.add(config())
    said = held.next(0)
    while not said.failed and not said.returned:
        said = held.next(0)
    assert said.failed.startswith(line)
    assert "\n" not in said.failed
    if "Error" in line:
        assert __file__ in said.traceback
        assert "in _run" not in said.traceback


def test_a_state_of_every_kind_comes_back_and_no_code_is_run() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    state = {
        "net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
        "draws": torch.get_rng_state(), "plain": [1, 2.5, "text", None, True, (1, 2), {3}, b"bytes", torch.float64],
        "parameter": next(net.parameters()), "counter": collections.Counter("aab"),
    }  # fmt: skip
    again = OwnState.of(5, state).value()
    net.load_state_dict(again["net"])
    optimizer.load_state_dict(again["optimizer"])
    schedule.load_state_dict(again["schedule"])
    assert again["plain"] == state["plain"]
    assert again["counter"] == state["counter"]
    assert torch.equal(again["draws"], state["draws"])


def test_damaged_states_are_told_from_whole_ones() -> None:
    data = pack({3: OwnState.of(5, {"x": torch.arange(4)}), 4: OwnState.of(6, 1)})
    assert own.unpack(data, {4})[4].value() == 1
    assert own.unpack(data)[3].update == 5
    for broken in (data[:-5], b"", pack({3: OwnState(5, b"")}).replace(b"state", b"stale")):
        with pytest.raises(DamagedStateError):
            own.unpack(broken)


def test_by_hand_a_trial_prints_its_reports(capsys: pytest.CaptureFixture[str]) -> None:
    descend(Trial({"lr": 0.5}, updates=4, reports=(2, 4)))
    assert capsys.readouterr().out == "update 2: loss 0.25\nupdate 4: loss 0.0625\n"
