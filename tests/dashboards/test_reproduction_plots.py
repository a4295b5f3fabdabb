"""Plots of stored results show the numbers that they stand for."""

import math

from dashboards.claims import CLAIMS
from dashboards.evidence import Evidence, Run
from dashboards.reproduction_plots import curves, ends, plots, starts
from sweeps.experiments import EXPERIMENTS


def evidence() -> Evidence:
    runs = [
        Run({"method": m, "mu_max": mu, "lr": lr}, seed, "complete", 10, {"e": [(5, 2 * v + seed), (10, v + seed)]})
        for m, mu, v in (("nag", 0.9, 2.0), ("nag", 0.99, 1.0), ("sgd", None, 4.0))
        for lr in (0.1, 0.01)
        for v in (v if lr == 0.1 else 10 * v,)
        for seed in range(3)
    ]
    return Evidence("e", "reduced", runs=tuple(runs))


def test_curves_are_medians_at_the_best_learning_rate() -> None:
    traces = {trace["name"]: trace for trace in curves(evidence(), "e", ("method", "mu_max"), "error")[0].data}
    assert list(traces) == ["nag 0.9", "nag 0.99", "sgd"]
    assert traces["nag 0.99"]["x"] == [5, 10]
    assert traces["nag 0.99"]["y"] == [3.0, 2.0]


def test_ends_repeat_what_has_no_place_along_the_axis() -> None:
    figure = ends(evidence(), "e", "method", "mu_max", "error")[0]
    sgd = [trace for trace in figure.data if trace["name"] == "sgd"]
    assert sgd[1]["x"] == ["0.9", "0.99"]
    assert sgd[1]["y"] == [5.0, 5.0]
    assert len(sgd[0]["y"]) == 6  # a dot for each seed at each place


def test_starts_count_those_that_started() -> None:
    times = (100, 200, math.inf, 300)
    runs = tuple(
        Run({"kappa": 2.0}, i, "complete", 400, {"valid_error": [(0, 0.9), *([] if t > 400 else [(int(t), 0.5)])]})
        for i, t in enumerate(times)
    )
    trace = starts(Evidence("e", "reduced", runs=runs), "kappa", "").data[0]
    assert trace["x"] == [0, 100, 200, 300, 400]
    assert trace["y"] == [0, 0.25, 0.5, 0.75, 0.75]


def test_every_experiment_with_claims_is_drawn_or_says_why_not() -> None:
    from dashboards.reproduction_plots import _PLOTTERS

    assert set(_PLOTTERS) <= set(EXPERIMENTS)
    assert {name for name in CLAIMS if name not in _PLOTTERS} == {"gb10-svm"}  # two numbers
    assert plots(Evidence("gb10-svm", "reduced")) == []
