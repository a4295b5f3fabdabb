"""Claims of Hanin and Rolnick 2018 (HR18); the paper prints no numbers, its claims are about shapes (SCIENCE 6)."""

from __future__ import annotations

import math

from dashboards.evidence import Evidence, Values, logrank, middle, number, trend
from dashboards.verdicts import Claim, Verdict, judged

STARTED = 0.8
"""Error below which a net has started: 20% accuracy."""


def started(evidence: Evidence) -> Values:
    """The update at which each replicate started, infinite for those that did not."""
    return {run.replicate: run.first_below("valid_error", STARTED) for run in evidence.runs}


def _share(evidence: Evidence) -> str:
    times = started(evidence)
    return f"{sum(map(math.isfinite, times.values()))} of {len(times)}"


def _depths(evidence: Evidence) -> list[int]:
    return sorted({run.params["depth"] for run in evidence.runs})


def _table(evidence: Evidence, **where: float) -> str:
    return ", ".join(f"{depth}: {_share(evidence.select(depth=depth, **where))}" for depth in _depths(evidence))


def critical_starts(evidence: Evidence) -> Verdict:
    """Fig. 1b: with variance 2 / fan-in and width = depth, nets start at every depth."""
    deep = [depth for depth in _depths(evidence) if depth >= 10]
    shares = [started(evidence.select(kappa=2.0, depth=depth)) for depth in deep]
    holds = bool(deep) and all(sum(map(math.isfinite, each.values())) >= 0.5 * len(each) > 0 for each in shares)
    return judged(
        "kappa 2 (He) with width = depth starts at depth 10 to 40",
        "Fig. 1b",
        f"started at depth {_table(evidence, kappa=2.0)}",
        holds,
        "starts: at least half of the nets of each depth",
    )


def others_fail(evidence: Evidence) -> Verdict:
    """Fig. 1b: with kappa 1 or 4 deep nets do not start."""
    deep = [depth for depth in _depths(evidence) if depth >= 20]
    kappas = sorted({run.params["kappa"] for run in evidence.runs} - {2.0})
    none = all(
        not any(map(math.isfinite, started(evidence.select(kappa=kappa, depth=depth)).values()))
        for kappa in kappas
        for depth in deep
    )
    measured = "; ".join(f"kappa {kappa:g} started at depth {_table(evidence, kappa=kappa)}" for kappa in kappas)
    return judged(
        "kappa 1 and 4 do not start from depth 20 on", "Fig. 1b", measured, none and bool(deep) and bool(kappas)
    )


def lengths(evidence: Evidence) -> Verdict:
    """Fig. 1a: mean squared length goes as (kappa / 2)^depth."""
    rates = evidence.values["rate_per_layer"]
    worst = max(abs(found - math.log(float(kappa) / 2)) for kappa, found in rates.items())
    measured = ", ".join(f"kappa {kappa}: {found:.3f}" for kappa, found in rates.items())
    return judged("log of the mean length changes by log(kappa / 2) a layer", "Theorem FC", measured, worst < 0.1)


def residual_starts(evidence: Evidence) -> Verdict:
    """Fig. 2b: eta = b^l starts at any depth."""
    depths = _depths(evidence)
    shares = [started(evidence.select(eta_base=base, depth=depth)) for depth in depths for base in _bases(evidence)]
    holds = all(sum(map(math.isfinite, each.values())) >= 0.5 * len(each) > 0 for each in shares)
    measured = "; ".join(f"b = {base:g}: {_table(evidence, eta_base=base)}" for base in _bases(evidence))
    return judged(
        "residual nets with eta = b^l start at any depth",
        "Fig. 2b",
        measured,
        bool(shares) and holds,
        "starts: at least half of the nets of each depth",
    )


def residual_fails(evidence: Evidence) -> Verdict:
    """Fig. 2b: eta = 1 fails when deep."""
    plain = evidence.select(eta_base=1.0)
    times = started(plain.select(depth=max(_depths(evidence))))
    holds = sum(map(math.isfinite, times.values())) < 0.5 * len(times)
    return judged("residual nets with eta = 1 fail when deep", "Fig. 2b", f"started at depth {_table(plain)}", holds)


def _bases(evidence: Evidence) -> list[float]:
    return sorted({run.params["eta_base"] for run in evidence.runs} - {1.0})


def residual_lengths(evidence: Evidence) -> Verdict:
    """Fig. 2a: M_L grows exponentially with modules at eta = 1 and stays bounded at eta = b^l."""
    growth = evidence.values["growth_of_last_half"]
    measured = ", ".join(f"{name}: x{number(value)}" for name, value in growth.items())
    bounded = max(value for name, value in growth.items() if name != "1")
    return judged(
        "M_L explodes with the number of modules at eta = 1, stays bounded at eta = b^l",
        "Fig. 2a",
        f"over the last 25 of 50 modules {measured}",
        growth["1"] > 1e3 > 10 > bounded,
    )


def start_tracks_sum(evidence: Evidence) -> Verdict:
    """Fig. 3b: time to start grows with the sum of 1/n over all architectures and depths."""
    pairs = [(run.params["sum_1_n"], run.first_below("valid_error", STARTED)) for run in evidence.runs]
    tau, p = trend(pairs)
    return judged(
        "time to start is ordered by sum 1/n",
        "Fig. 3b",
        f"Kendall's tau {tau:.2f} over {len(pairs)} nets, p = {p:.1g}",
        tau > 0 and p <= 0.05,
    )


def wider_starts_sooner(evidence: Evidence) -> Verdict:
    """Fig. 3a: constant 20 starts sooner than the four of equal sum 1/n (log-rank)."""
    depth = max(_depths(evidence))
    deepest = evidence.select(depth=depth)
    cap = max(run.updates for run in deepest.runs)
    wide, rest = started(deepest.select(widths="constant-20")), _pooled(deepest)
    p = logrank((wide, rest), cap)
    return judged(
        "constant width 20 starts sooner than the four of equal sum 1/n",
        "Fig. 3a",
        f"at depth {depth}, the deepest, median {_time(wide)} against {_time(rest)}; log-rank p = {p:.1g}",
        middle(wide) < middle(rest) and p <= 0.05,
    )


def equal_sums_coincide(evidence: Evidence) -> Verdict:
    """Fig. 3b: at each depth the four architectures with equal sums cannot be told apart (log-rank, Bonferroni)."""
    cap = max(run.updates for run in evidence.runs)
    names = sorted({run.params["widths"] for run in evidence.runs} - {"constant-20"})
    told: list[tuple[float, str]] = []
    for depth in _depths(evidence):
        samples = {name: started(evidence.select(depth=depth, widths=name)) for name in names}
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                sooner, later = sorted((one, other), key=lambda name: sum(map(_capped, samples[name].values())))
                p = logrank((samples[one], samples[other]), cap)
                told.append((p, f"{sooner} sooner than {later} at depth {depth}"))
    p, which = min(told)
    return judged(
        "the four of equal sum 1/n cannot be told apart",
        "Fig. 3b",
        f"smallest of {len(told)} log-rank p {p:.2g}: {which}",
        p > 0.05 / len(told),
        "level .05 over the number of pairs; learning rate, batch and cap are ours, the paper's are not known",
    )


def _capped(time: float) -> float:
    """A waiting time that sums can be made of."""
    return min(time, 1e9)


def _time(values: Values) -> str:
    """A median waiting time in words."""
    return f"{number(middle(values))} updates" if math.isfinite(middle(values)) else "never within the cap"


def _pooled(evidence: Evidence) -> Values:
    runs = [run for run in evidence.runs if run.params["widths"] != "constant-20"]
    return {index: run.first_below("valid_error", STARTED) for index, run in enumerate(runs)}


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "hr18-fig1": (critical_starts, others_fail),
    "hr18-fig1-lengths": (lengths,),
    "hr18-fig2": (residual_starts, residual_fails),
    "hr18-fig2-lengths": (residual_lengths,),
    "hr18-fig3": (start_tracks_sum, wider_starts_sooner, equal_sums_coincide),
}
