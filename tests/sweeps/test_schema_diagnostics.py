import pytest

from sweeps.spec import SpecError, SweepSpec, parse
from trainers.config import DIAGNOSTICS
from trainers.doomed import Bounds

LIGHT = ("activations", "gradients", "lengths")


def spec(**changes) -> SweepSpec:
    base = {"task": "digits", "training": {"updates": 100, "reports": 5}, "objective": "valid_loss"}
    return parse({**base, **changes})


@pytest.mark.parametrize(
    ("diagnostics", "found"),
    [
        (None, {}),
        (False, {}),
        (True, {0: DIAGNOSTICS, 40: LIGHT, 100: DIAGNOSTICS}),
        ({"at": ["reports"]}, dict.fromkeys((20, 40, 60, 80, 100), LIGHT)),
        ({"at": ["rungs", 0, 21, 1e2]}, dict.fromkeys((0, 40, 100), DIAGNOSTICS)),  # updates stand for the next report
        ({"at": ["reports", "end"], "what": ["jacobian"]}, {100: ("jacobian",)}),
    ],
)
def test_what_is_measured_when(diagnostics, found) -> None:
    stopping = {"rungs": [30]}
    made = spec(diagnostics=diagnostics, early_stopping=stopping)
    assert made.diagnosed() == found
    assert SweepSpec.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("doomed", "act", "bounds"),
    [
        (True, "skip", Bounds()),
        ("skip", "skip", Bounds()),
        ("record", "record", Bounds()),
        ({"length": [0, 1e3]}, "skip", Bounds(length=(0.0, 1000.0))),
        ({"act": "record", "gradient": [0.1, 10]}, "record", Bounds(gradient=(0.1, 10.0))),
    ],
)
def test_short_and_long_forms_of_doomed(doomed, act: str, bounds: Bounds) -> None:
    found = spec(early_stopping={"rungs": None, "doomed": doomed})
    assert found.rungs() == []
    assert found.early_stopping.doomed.act == act
    assert found.early_stopping.doomed.bounds == bounds
    assert SweepSpec.model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diagnostics": {"at": ["inits"]}}, "neither a moment nor an update.*did you mean init"),
        ({"diagnostics": {"at": [-1]}}, "neither a moment nor an update"),
        ({"diagnostics": {"at": []}}, "diagnostics.at=\\[\\]: not moments; allowed: a list of init, rungs"),
        ({"diagnostics": {"at": [101]}}, "diagnostics.at.0=101: after the end of a trial \\(100 updates\\)"),
        ({"diagnostics": {"what": ["lenghts"]}}, "unknown diagnostic.*did you mean lengths"),
        ({"diagnostics": "yes"}, "diagnostics=yes: neither a switch nor a section; allowed: true, false"),
        ({"early_stopping": {"doomed": "recrod"}}, "neither a switch nor a section.*did you mean record"),
        ({"early_stopping": {"doomed": {"length": [1, 2]}}}, "doomed.length=\\[1, 2\\]: bounds that leave no net"),
        ({"early_stopping": {"doomed": {"length": [True, 2]}}}, "not bounds"),
        ({"early_stopping": {"doomed": {"bounds": 3}}}, "unknown key; allowed: act, length, gradient"),
    ],
)
def test_mistakes_are_one_line_with_what_is_allowed(changes, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec(**changes)
