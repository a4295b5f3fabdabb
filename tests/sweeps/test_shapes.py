"""Nets from kinds, rules and factors, as GB10 and HR18 describe theirs."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps import resolve
from sweeps.shapes import WidthRule
from sweeps.spec import SweepSpec, parse

RULES = {
    "constant": {"rule": "constant", "a": 15},
    "alternating": {"rule": "alternating", "a": 30, "b": 10},
    "30-then-10": {"rule": "first-half", "a": 30, "b": 10},
    "10-then-30": {"rule": "first-half", "a": 10, "b": 30},
    "growing": {"rule": "growing", "a": 10, "b": 40},
    "shrinking": {"rule": "shrinking", "a": 40, "b": 10},
}


def spec_of(model: dict[str, Any], task: str = "digits", **sections: Any) -> SweepSpec:
    return parse({"task": task, "model": model, **sections})


def test_rules_of_widths_at_even_and_odd_depths() -> None:
    assert WidthRule("constant", 15).of(3) == (15, 15, 15)
    assert WidthRule("alternating", 30, 10).of(5) == (30, 10, 30, 10, 30)
    assert WidthRule("first-half", 30, 10).of(4) == (30, 30, 10, 10)
    assert WidthRule("first-half", 30, 10).of(5) == (30, 30, 30, 10, 10)
    assert WidthRule("growing", 10, 40).of(4) == (10, 20, 30, 40)
    assert WidthRule("shrinking", 40, 10).of(3) == (40, 25, 10)
    assert [WidthRule("growing", 10, 40).of(depth) for depth in (0, 1)] == [(), (10,)]


def test_four_architectures_of_hr18_fig_3_have_one_sum_of_inverse_widths() -> None:
    """1/30 + 1/10 = 2/15: alternating, both halves and constant 15 coincide, constant 20 is below them."""
    sums = {name: sum(1 / n for n in WidthRule(**rule).of(20)) for name, rule in RULES.items()}
    for name in ("alternating", "30-then-10", "10-then-30"):
        assert sums[name] == pytest.approx(sums["constant"])
    assert sum(1 / n for n in WidthRule("constant", 20).of(20)) == pytest.approx(0.75 * sums["constant"])


def test_arrangements_are_searched_by_name() -> None:
    space = {"widths": [*RULES], "depth": [2, 4]}
    spec = spec_of({"arrangements": RULES, "activation": "relu"}, space=space)
    assert spec.net({"widths": "alternating", "depth": 4}).widths == (64, 30, 10, 30, 10, 10)
    assert spec.net({"widths": "shrinking", "depth": 2}).widths == (64, 40, 10, 10)
    assert len(resolve.shapes(spec)) == 11  # of two layers, alternating is 30-then-10
    assert spec_of({"widths": RULES["growing"], "depth": 4}).net({}).widths == (64, 10, 20, 30, 40, 10)


def test_width_is_depth() -> None:
    """HR18 Fig. 1."""
    spec = spec_of({"width": "depth"}, space={"depth": [3, 7]})
    assert [spec.net({"depth": depth}).widths[1:-1] for depth in (3, 7)] == [(3,) * 3, (7,) * 7]


@pytest.mark.parametrize(
    ("eta", "factors"),
    [(None, (1.0, 1.0)), (0.5, (0.5, 0.5)), ({"base": 0.9}, (0.9, 0.9**2)), ([1, 0.25], (1.0, 0.25))],
)
def test_residual_factors(eta: Any, factors: tuple[float, ...]) -> None:
    """One for each hidden layer but the first; eta_l = b^l counts from l = 1."""
    spec = spec_of({"kind": "residual", "depth": 3, "width": 5, "eta": eta})
    assert spec.net({}).eta == factors
    assert spec.net({}).widths == (64, 5, 5, 5, 10)
    assert SweepSpec.model_validate(spec.model_dump(mode="json")).net({}) == spec.net({})


def test_eta_base_is_searched_and_one_is_plain() -> None:
    spec = spec_of({"kind": "residual"}, space={"eta_base": [1, 0.5], "depth": [1, 3]})
    assert spec.net({"eta_base": 1, "depth": 3}).eta == (1.0, 1.0)
    assert spec.net({"eta_base": 0.5, "depth": 3}).eta == (0.5, 0.25)
    assert spec.net({"eta_base": 0.5, "depth": 1}).eta == ()
    assert len(resolve.shapes(spec)) == 3
    listed = spec_of({"kind": "residual", "eta": [1.0, 0.5]})
    assert listed.model.depth == 3


def test_recurrent_nets_are_s13s_where_nothing_is_said() -> None:
    spec = spec_of({}, task="add")
    net = spec.net({})
    assert (spec.model.kind, spec.training.init, net.hidden, net.widths[1]) == ("rnn", "echo", ("tanh",), 100)
    assert net.steps == spec.info.steps > 0
    assert not net.every_step
    assert spec_of({"width": 7}, task="mem-5").net({}).every_step
    long, short = (parse({"task": {"name": "add", "length": length}}).net({}) for length in (80, 30))
    assert long.steps == 88  # T to 11 T / 10 (SCIENCE 3)
    assert short.steps == 33
    assert len(resolve.shapes(spec_of({}, task="add", space={"width": [5, 10], "method": ["cm", "nag"]}))) == 2


def test_code_and_loss_of_an_autoencoder() -> None:
    net = spec_of({"depth": 5, "code": "tanh", "loss": "squared"}, task="curves").net({})
    assert net.hidden == ("sigmoid", "sigmoid", "tanh", "sigmoid", "sigmoid")
    assert net.loss == "squared"
    assert spec_of({"loss": "squared"}).net({}).loss == "squared"


def test_methods_and_inits_reach_the_trial() -> None:
    training = {
        "method": "adamw", "mu_max": 0.95, "lr_schedule": "cosine", "lr_warmup": 7, "beta2": 0.99, "epsilon": 1e-6,
        "weight_decay": 0.1, "init": "kappa", "kappa": 3.0, "init_scale": 0.5,
    }  # fmt: skip
    spec = spec_of({}, training=training, space={"damping": 0.3, "mu_schedule": "first", "corruption": 0.1})
    config = spec.trial_config(0, {})
    method, init = config.method, config.init
    assert (method.kind, method.mu_max, method.lr_schedule, method.lr_warmup) == ("adamw", 0.0, "cosine", 7)
    assert (method.beta2, method.epsilon, method.weight_decay, method.damping) == (0.99, 1e-6, 0.1, 0.3)
    assert (method.mu_schedule, init.kind, init.kappa, init.scale) == ("first", "kappa", 3.0, 0.5)
    assert init.corruption == 0.1
