import pytest

from sweeps import history, tracked
from sweeps.history import END_STATES, Trial
from tests.sweeps import told

SAID = [record for commit in told.commits() for record in commit]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:s3cr@t@host/db", "postgresql://me:***@host/db"),
        ("x https://a:b@c/d and https://e:f@g", "x https://a:***@c/d and https://e:***@g"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_redact(text: str, clean: str) -> None:
    assert tracked.redact(text) == clean


def test_every_end_state_has_an_mlflow_state() -> None:
    trials = [Trial(0, {}, {}, "search", "p", 0, 0, 0.0, state=state) for state in END_STATES]
    assert [tracked.trial_status(trial) for trial in trials] == [
        "FINISHED",
        "FINISHED",
        "FINISHED",
        "FAILED",
        "FINISHED",
    ]


def test_params_name_what_had_an_effect() -> None:
    trials = history.fold(SAID).trials
    plain, nesterov = tracked.trial_params(trials[0]), tracked.trial_params(trials[2])
    assert plain["method"] == "sgd"
    assert not {"mu_max", "mu_step", "one_minus_mu_max", "tail_mu"} & plain.keys()  # SGD has no momentum
    assert (nesterov["method"], nesterov["mu_max"], nesterov["one_minus_mu_max"]) == ("nag", "0.9", "0.1")
    assert "tail_mu" not in nesterov  # there is no tail
    assert (nesterov["widths"], nesterov["activations"], nesterov["fan_in"]) == ("64-8-10", "tanh", "15")
    assert nesterov["lr"] == str(0.1 * 3)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("finished", "FINISHED"),
        ("budget", "FINISHED"),
        ("interrupted", "KILLED"),
        ("failed", "FAILED"),
        (None, "RUNNING"),
    ],
)
def test_a_sweep_ends_as_its_driver_left(reason: str | None, status: str) -> None:
    assert tracked.sweep_status(history.History(closed=reason)) == status


def test_a_repeated_report_keeps_its_first_time() -> None:
    follower = tracked.Follower()
    follower.apply(SAID)
    assert follower.times[0] == {u: round((told.START + at) * 1000) for u, at in {10: 2, 20: 3, 30: 4, 40: 102}.items()}


def test_a_trial_of_the_users_own_trainer_has_its_own_params() -> None:
    config = {"number": 0, "trainer": "my:train", "params": {}, "updates": 30, "batch": 1, "seed": {"sweep": 3}}
    trial = Trial(0, {"mu_max": "high", "batch": 16}, config, "search", "p", 0, 0, 0.0)
    assert tracked.trial_params(trial) == {
        "updates": "30", "trainer": "my:train", "seed.sweep": "3", "mu_max": "high", "batch": "16",
    }  # fmt: skip
    spec = {"trainer": "my:train", "task": {"name": ""}, "objective": {"metric": "loss"}}
    assert tracked.sweep_params(spec) == {"trainer": "my:train", "objective": "loss", "space": ""}
