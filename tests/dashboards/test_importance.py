"""Our PED-ANOVA against Optuna's, on the same trials with the same ranks."""

from pathlib import Path

import optuna
import pytest

from dashboards.importance import importances
from dashboards.view import View, read
from tests.dashboards.synthetic import SPACE, Sweep, make


def optunas(view: View) -> dict[str, float]:
    """Optuna's shares for the view's ranking; objectives are ranks, since PED-ANOVA uses nothing else."""
    found = importances(view)
    assert not isinstance(found, str), found
    _, top, total = found
    study = optuna.create_study()
    kinds: dict[str, optuna.distributions.BaseDistribution] = {}
    for param in view.params:
        if param.kind == "choice":
            kinds[param.name] = optuna.distributions.CategoricalDistribution(param.values)
        elif param.kind == "int":
            kinds[param.name] = optuna.distributions.IntDistribution(int(param.low), int(param.high))
        else:
            kinds[param.name] = optuna.distributions.FloatDistribution(*param.span())
    for rank, trial in enumerate(view.ranked):
        params = {p.name: trial.params[p.name] for p in view.params if p.name in trial.params}
        values = {p.name: p.place(params[p.name]) if p.kind == "float" else params[p.name] for p in view.params
                  if p.name in params}  # fmt: skip
        own = {name: kinds[name] for name in values}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=own, value=float(rank)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top / total)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


@pytest.mark.parametrize(("trials", "best"), [(12, 5), (24, 8), (64, 10), (400, 40)])
def test_shares_equal_optunas(tmp_path: Path, trials: int, best: int) -> None:
    view = read(make(tmp_path, Sweep(trials=trials)))  # conditional parameters, int, choices, log and 1 - mu axes
    found = importances(view)
    assert not isinstance(found, str)
    shares, top, total = found
    assert (top, total) == (best, trials)
    assert shares == pytest.approx(optunas(view), abs=1e-9)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_the_parameter_that_decides_gets_the_most(tmp_path: Path) -> None:
    space = {name: SPACE[name] for name in ("lr", "init", "fan_in")} | {
        "width": {"type": "int", "low": 8, "high": 128}, "batch": {"type": "choice", "values": [50, 100, 200]},
    }  # fmt: skip
    found = importances(read(make(tmp_path, Sweep(trials=300, space=space, rungs=(), diverge=0))))
    assert not isinstance(found, str)
    shares = found[0]
    assert next(iter(shares)) == "lr"  # width and batch do nothing in the simulation
    assert shares["width"] + shares["batch"] < 0.2 * shares["lr"]


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        (Sweep(trials=0), "at least 10 finished trials; there are 0"),
        (Sweep(trials=9), "at least 10 finished trials; there are 9"),
        (Sweep(trials=40, diverge=1e9, rungs=()), "more than 5 trials that did not diverge; there are 0"),
        (Sweep(trials=40, space={"lr": SPACE["lr"]}), "fewer than two"),
    ],
)
def test_what_cannot_be_said_is_explained(tmp_path: Path, sweep: Sweep, reason: str) -> None:
    found = importances(read(make(tmp_path, sweep)))
    assert isinstance(found, str)
    assert reason in found
