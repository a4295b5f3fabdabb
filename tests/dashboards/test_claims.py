"""Claims judged on made-up results whose answer is known, and on none."""

import dataclasses
import math
from collections.abc import Iterable

import pytest

from dashboards.claims import CLAIMS, gb10, hr18, s13, s13_race
from dashboards.evidence import Evidence, Run
from dashboards.verdicts import FAILS, HOLDS, NOT_RUN, OPEN, below
from sweeps.experiments import EXPERIMENTS


def evidence(runs: Iterable[Run], name: str = "e") -> Evidence:
    return Evidence(name, "reduced", runs=tuple(runs))


def ended(metric: str, value: float, replicate: int, **params: object) -> Run:
    return Run(params, replicate, "complete", 10, {metric: [(5, value), (10, value)]})


def test_every_experiment_has_claims_or_says_it_has_none() -> None:
    assert set(CLAIMS) <= set(EXPERIMENTS)
    assert {name for name in EXPERIMENTS if not CLAIMS.get(name)} == {
        "gb10-monitoring", "s13-fig3-centred", "s13-fig3-uncentred", "s13-table5-mul"
    }  # fmt: skip


def test_below_needs_significance_both_ways() -> None:
    low, high = {i: 1.0 + i / 10 for i in range(5)}, {i: 2.0 + i for i in range(5)}
    assert below("c", "p", ("a", low), ("b", high)).verdict == HOLDS
    assert below("c", "p", ("a", high), ("b", low)).verdict == FAILS
    assert below("c", "p", ("a", low), ("b", {**high, 0: 0.1})).verdict == OPEN
    assert below("c", "p", ("a", low), ("b", {})).verdict == NOT_RUN


@pytest.mark.parametrize(("nag", "cm", "verdict"), [(1.0, 2.0, HOLDS), (2.0, 1.0, FAILS)])
def test_nag_against_cm_at_each_ones_best_learning_rate(nag: float, cm: float, verdict: str) -> None:
    runs = [
        ended(s13.ERROR, value * factor, seed, method=method, mu_max=0.995, lr=lr)
        for method, value in (("nag", nag), ("cm", cm))
        for lr, factor in ((0.1, 100.0), (0.01, 1.0 if method == "nag" else 1.1))
        for seed in range(5)
    ]
    assert s13.nag_beats_cm(evidence(runs, "s13-table1-curves")).verdict == verdict


def test_published_figures_are_those_of_the_task() -> None:
    """SCIENCE 1.3 and 5: Table 1 of each paper has a row, or a column, for each task."""
    assert s13.nag_beats_cm(evidence([], "s13-table1-mnist")).published == "mnist .75 / .84"
    assert s13.momentum_beats_sgd(evidence([], "s13-table1-faces")).published == "faces 14.2 / 36.4"
    assert gb10.normalized_beats_standard(evidence([], "gb10-table1-cifar10")).published == "CIFAR-10 52.92 / 55.9"
    runs = [
        ended("test_error", 0.5, seed, activation="tanh", init=init, lr=0.1)
        for init in ("normalized", "standard")
        for seed in range(5)
    ]
    for run in runs:
        run.series["valid_error"] = run.series["test_error"]  # type: ignore[index]
    assert gb10.bold(evidence(runs, "gb10-table1-cifar10")).published == "tanh N* of five"


def test_scale_of_sparse_init() -> None:
    runs = [
        ended(s13.ERROR, value, seed, init_scale=scale)
        for scale, value in ((0.25, 7.1), (0.5, 4.8), (1.0, 0.65), (2.0, 1.2), (4.0, 7.1))
        for seed in range(5)
    ]
    assert s13.scale_one_works(evidence(runs)).verdict == HOLDS
    assert s13.larger_scales(evidence(runs)).verdict == HOLDS
    assert s13.largest_scale(evidence(runs)).verdict == FAILS  # as bad as the mean image
    assert s13.scale_one_works(evidence(runs[5:])).verdict == NOT_RUN
    assert s13.scale_one_works(evidence(r for r in runs if r.params["init_scale"] != 1.0)).verdict == NOT_RUN
    diverged = (dataclasses.replace(run, state="diverged") for run in runs[10:15])
    assert s13.scale_one_works(evidence([*runs[:10], *diverged])).verdict == FAILS


def test_what_was_not_run_neither_holds_nor_fails() -> None:
    for claim in (gb10.sigmoid_fails, s13.add_not_without, s13.add_solved, s13.larger_scales, s13.lowering_early):
        assert claim(evidence([])).verdict == NOT_RUN


def test_last_phase_is_paired_with_its_own_control() -> None:
    runs = [
        Run({"mu_max": mu}, seed, "complete", 10, {s13.ERROR: [(10, e)], f"fork/lowered/{s13.ERROR}": [(10, 0.9 * e)]})
        for mu in (0.99, 0.999)
        for seed, e in enumerate((1.0, 7.0, 0.5, 2.0, 3.0))
    ]
    found = s13.last_phase(evidence(runs))
    assert found.verdict == HOLDS
    few = s13.last_phase(evidence(run for run in runs if run.replicate < 4))  # 8 trials, but 4 pairs: p = 1/16
    assert few.verdict == OPEN
    assert "p = 0.062" in few.measured
    assert found.note == "median gain 10.0% at mu_max 0.99, 10.0% at mu_max 0.999"


def test_neither_alone_compares_with_the_better_single() -> None:
    cells = {("sparse", "nag"): 0.5, ("sparse", "sgd"): 2.0, ("standard", "nag"): 7.0, ("standard", "sgd"): 7.1}
    runs = [ended(s13.ERROR, v, seed, init=i, method=m, lr=0.1) for (i, m), v in cells.items() for seed in range(5)]
    found = s13.neither_alone(evidence(runs))
    assert found.verdict == HOLDS
    assert "init alone" in found.measured


def test_diverged_recurrent_nets_do_not_solve_add() -> None:
    """abs(nan) > .04 is False: a diverged run must not score a perfect 0 (SCIENCE 11)."""
    point = {"method": "nag", "init": "echo"}
    runs = [Run({**point, "mu_max": 0.995}, seed, "diverged", 10, {"valid_error": [(5, 0.0)]}) for seed in range(5)]
    assert s13.add_solved(evidence(runs)).verdict == FAILS
    solved = [
        ended("valid_error", 0.002 if mu else 0.84, seed, **point, mu_max=mu)
        for mu in (0.0, 0.995)
        for seed in range(5)
    ]
    assert s13.add_solved(evidence(solved)).verdict == HOLDS
    assert s13.add_not_without(evidence(solved)).verdict == HOLDS


def test_add_is_judged_at_each_cells_best_learning_rate() -> None:
    """The full protocol searches lr (SCIENCE 1.5: best per mu0), whichever comes last in the grid."""
    runs = [
        ended("valid_error", error, seed, method="nag", mu_max=mu, lr=lr, init="echo")
        for lr, error in ((1e-3, 0.001), (1e-6, 0.9))
        for mu in (0.0, 0.995)
        for seed in range(5)
    ]
    assert s13.add_solved(evidence(runs)).verdict == HOLDS
    assert s13.add_not_without(evidence(runs)).verdict == FAILS


def test_add_is_judged_under_echo_state_init_alone() -> None:
    """The factorial has other inits beside it, of the same method, mu0 and seeds."""
    runs = [
        ended("valid_error", 0.001 if init == "echo" else 0.9, seed, method="nag", mu_max=0.995, init=init)
        for init in ("echo", "standard")
        for seed in range(5)
    ]
    assert s13.add_solved(evidence(runs)).verdict == HOLDS
    assert s13.add_solved(evidence(runs[5:])).verdict == NOT_RUN


def test_two_proportions_over_the_examples_that_there_were() -> None:
    """52% against 54%: told apart at p = .005 over 10,000 test examples, not over the 1,000 of a subset."""
    runs = [
        Run({"activation": activation, "init": init, "lr": 0.1}, seed, "complete", 10,
            {"valid_error": [(10, error)], "test_error": [(10, error)]})
        for (activation, init), error in {("tanh", "normalized"): 0.52, ("sigmoid", "standard"): 0.54}.items()
        for seed in range(5)
    ]  # fmt: skip
    whole = evidence(runs, "gb10-table1-cifar10")
    assert gb10.bold(whole).verdict == HOLDS
    subset = gb10.bold(dataclasses.replace(whole, values={"test_examples": 1000}))
    assert subset.verdict == FAILS
    assert "over 1000 examples" in subset.note


def starts(update: float, **params: object) -> list[Run]:
    series = {"valid_error": [(0, 0.9), (int(min(update, 500)), 0.9 if update > 500 else 0.7)]}
    return [Run(params, seed, "complete", 500, series) for seed in range(6)]


def test_hanin_and_rolnick_figure_1() -> None:
    runs = [run for depth in (3, 10, 20, 40) for run in starts(90, kappa=2.0, depth=depth)]
    runs += [
        run for k in (1.0, 4.0) for d in (3, 20, 40) for run in starts(90 if d == 3 else math.inf, kappa=k, depth=d)
    ]
    assert hr18.critical_starts(evidence(runs)).verdict == HOLDS
    assert hr18.others_fail(evidence(runs)).verdict == HOLDS
    assert hr18.others_fail(evidence([*runs, *starts(90, kappa=4.0, depth=40)])).verdict == FAILS
    assert hr18.critical_starts(evidence([*runs[6:], *starts(math.inf, kappa=2.0, depth=60)])).verdict == FAILS


def test_hanin_and_rolnick_figure_3() -> None:
    widths = {"constant-20": 20, "constant-15": 15, "30-then-10": 15, "10-then-30": 15, "alternating-30-10": 15}
    runs = [
        run
        for depth, late in ((20, 100), (60, 300))
        for name, mean in widths.items()
        for run in starts(late / 2 if mean == 20 else late, widths=name, depth=depth, sum_1_n=depth / mean)
    ]
    assert hr18.start_tracks_sum(evidence(runs)).verdict == HOLDS
    assert hr18.wider_starts_sooner(evidence(runs)).verdict == HOLDS
    assert hr18.equal_sums_coincide(evidence(runs)).verdict == HOLDS


def test_learning_rate_is_chosen_on_valid_and_test_read_once() -> None:
    runs = [
        Run({"activation": "tanh", "init": "normalized", "lr": lr}, seed, "complete", 10,
            {"valid_error": [(10, valid)], "test_error": [(10, test)]})
        for lr, valid, test in ((0.1, 0.5, 0.6), (0.03, 0.55, 0.1))
        for seed in range(3)
    ]  # fmt: skip
    assert set(gb10.chosen(evidence(runs), "tanh", "normalized").values()) == {0.6}


def test_two_proportions() -> None:
    """z = .01 / sqrt(2 * .16 * .84 / 10,000) = 1.929 for 15.5% against 16.5%: p = .0537."""
    assert gb10.differ((0.155, 0.165), 10_000) == pytest.approx(0.0537, abs=2e-4)
    assert gb10.differ((0.2, 0.2), 10) == 1


def racing(name: str, start: float, end: float) -> list[Run]:
    """Eight seeds of an arm, a few percent apart, falling as a power of the work from update 10 to 1000."""
    stage, method = s13_race.STAGES[name]
    slope = math.log(end / start) / math.log(100)
    return [
        Run({"stage": stage, "method": method}, seed, "complete", 1000, {
            s13.ERROR: [(u, start * (u / 10) ** slope * (1 + 0.01 * seed)) for u in (10, 30, 100, 300, 1000)]})
        for seed in range(8)
    ]  # fmt: skip


def test_the_race_is_judged_on_fresh_seeds_and_says_where_one_passes_the_other() -> None:
    """SGD falls as u^-.5 from 1, HF as u^-1 from 2: they meet where u = 10 * 2^2."""
    lucky = Run({"method": "nag"}, 0, "complete", 1000, {s13.ERROR: [(1000, 1e-9)]})  # of the search: not counted
    arms = [*racing("SGD", 1, 0.1), *racing("HF", 2, 0.02), *racing("NAG", 1, 0.03), *racing("CM", 1, 0.02)]
    found = evidence([lucky, *arms], "s13-hf-race")
    there = s13_race.passed(found, "HF", "SGD")
    assert there is not None
    assert there.work == pytest.approx(40, rel=1e-6)
    assert s13_race.hf_beats_sgd(found).verdict == HOLDS
    assert "HF is below SGD from update 40 " in s13_race.hf_beats_sgd(found).note
    assert s13_race.nag_beats_hf(found).verdict == FAILS
    assert s13_race.cm_beats_hf(found).verdict == OPEN
    assert s13_race.nag_beats_hf(evidence([lucky], "s13-hf-race")).verdict == NOT_RUN
