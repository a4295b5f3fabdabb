"""Forks: the same bits as training from the start, from a state that is found, checked and carried over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps import folder as folders
from sweeps import forks
from sweeps.history import Trial
from sweeps.spec import SpecError, SweepSpec
from tests.trainers import cases
from trainers.checkpoint import pack
from trainers.config import TrialConfig
from trainers.group import Group
from trainers.state import initial_state

SPEC = SweepSpec.model_validate(
    {
        "name": "parent",
        "task": "digits",
        "model": {"depth": 1, "width": 4},
        "training": {"updates": 60, "reports": 6, "batch": 8, "mu_step": 3, "keep": [40]},
        "space": {"lr": [0.1, 0.05], "mu_max": {"type": "float", "low": 0.5, "high": 0.99}, "method": ["nag", "cm"]},
        "search": {"seed": 5, "seeds": 3},
        "early_stopping": {"factor": 2},
    }
)
PARAMS = {"lr": 0.1, "mu_max": 0.95, "method": "nag"}


def trial(number: int = 7) -> Trial:
    config = SPEC.trial_config(number, PARAMS, replicate=SPEC.replicate(number)).to_dict()
    return Trial(number, PARAMS, config, "search", "", SPEC.replicate(number), 0, 0.0, updates=60)


def fork(*overrides: str, at: int = 40, updates: int | None = None) -> SweepSpec:
    return forks.spec_of(Path("runs/parent"), SPEC.model_dump(mode="json"), trial(), at, updates, overrides)


def test_a_fork_trains_as_the_trial_would_have() -> None:
    spec = fork("tail_updates=[0, 20]")
    control, tail = (
        spec.trial_config(n, point, replicate=spec.replicate(n)) for n, point in enumerate(spec.space.grid())
    )
    assert spec.budget.trials == 2
    assert TrialConfig.from_dict({**control.to_dict(), "number": 7}) == TrialConfig.from_dict(trial().config)
    assert (tail.method.tail_updates, tail.updates, tail.seed.replicate) == (20, 60, 1)
    assert spec.report_updates() == SPEC.report_updates()
    assert SweepSpec.model_validate(json.loads(spec.model_dump_json())) == spec


def test_a_finished_trial_goes_on() -> None:
    spec = fork("mu_max=[0.9, 0.99]", "training.lr_schedule=cosine", at=60, updates=30)
    assert (spec.training.updates, spec.report_updates()[-3:]) == (90, [70, 80, 90])
    assert [point["mu_max"] for point in spec.space.grid()] == [0.9, 0.99]
    assert spec.trial_config(0, {}).method.lr_schedule == "cosine"


def test_the_bits_are_those_of_training_from_the_start() -> None:
    """S13 Table 2's variants at 40 of 60 updates: by a fork, from the stored state, and trained as a whole."""
    data = cases.task(net := SPEC.net(PARAMS), examples=60)
    spec = fork("tail_updates=[0, 20]")
    configs = [spec.trial_config(n, point, replicate=spec.replicate(n)) for n, point in enumerate(spec.space.grid())]
    group = Group(data, "loop", dtype="float64", eval_examples=30)
    for config in configs:
        group.add(config)
    group.advance({0: 40, 1: 40})
    state = group.state(0)
    assert cases.same_bits(state, group.state(1))
    forked = group.fork([0], 20, 0.9)[0]
    for config in configs:
        group.add(TrialConfig.from_dict({**config.to_dict(), "number": 10 + config.number}), state)
    group.advance(dict.fromkeys((0, 1, 10, 11), 60))
    assert group.evaluate([1])[1] == forked != group.evaluate([0])[0]
    for number in (0, 1):
        assert cases.same_bits(group.state(number), group.state(10 + number))
    assert net == configs[0].net


@pytest.mark.parametrize(
    ("overrides", "more", "line"),
    [
        (["depth=2"], {}, "space: another net than the trial's, whose state could not be taken over; "
         "allowed: the trial's own depth, widths and task"),
        (["method=adam"], {}, "space.method=adam: the state is of nag, which keeps something else; "
         "allowed: sgd, cm, nag"),
        ([], {"at": 60}, "start.at=60: the state has these updates behind it, trials end at 60; "
         "allowed: more training.updates than 60"),
        (["search.seeds=2"], {}, "search.seeds=2: a stored state is of one replicate; allowed: 1"),
        (["lr.low=0.1"], {}, "space.lr.low=0.1: unknown key"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_refused(overrides: list[str], more: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        fork(*overrides, **more)
    assert line in str(caught.value)


def test_the_state_is_carried_into_the_new_folder(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    state = initial_state(TrialConfig.from_dict(trial().config))
    state.update = 40
    path = forks.state_path(old, 7, 40)
    path.parent.mkdir(parents=True)
    path.write_bytes(pack({7: state}))
    spec = forks.spec_of(old, SPEC.model_dump(mode="json"), trial(), 40, None, [])
    folders.create(spec, new)
    path.unlink()  # the new sweep does not need the old one any more
    read = forks.read_start(new, folders.read_spec(new))
    assert read is not None
    assert cases.same_bits(read, state)
    assert forks.read_start(new, SPEC) is None


def test_a_state_that_was_not_kept_is_told_with_those_that_were(tmp_path: Path) -> None:
    spec = forks.spec_of(tmp_path, SPEC.model_dump(mode="json"), trial(), 30, None, [])
    with pytest.raises(FileNotFoundError, match="no state of t00007 at update 30: there is none; states are kept at"):
        folders.create(spec, tmp_path / "new")
    forks.state_path(tmp_path, 7, 40).parent.mkdir()
    forks.state_path(tmp_path, 7, 40).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="at update 30: there are 40;"):
        folders.create(spec, tmp_path / "new")
    assert not (tmp_path / "new").exists()
