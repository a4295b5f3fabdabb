"""Claims of Sutskever, Martens, Dahl and Hinton 2013 (S13); figures as in its tables, see SCIENCE 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median

from dashboards.evidence import Evidence, Values, middle, number, spread
from dashboards.verdicts import Claim, Verdict, below, judged

ERROR = "train_squared_error"
LAST = 5
"""Reports whose median stands for a recurrent net's end: its zero-one loss jumps (SCIENCE 11)."""


PUBLISHED = {
    "curves": (".091 / .10", ".096 / .10", ".096 / .16", ".16 / .48"),
    "mnist": (".75 / .84", ".73 / .77", ".73 / 1.0", "1.0 / 2.1"),
    "faces": ("7.8 / 8.3", "8.5 / 8.7", "8.5 / 14.2", "14.2 / 36.4"),
}
"""Of Table 1: NAG and CM at mu_max .995, at .99; NAG at .99 and .9; NAG at .9 and SGD."""


def _published(evidence: Evidence, which: int) -> str:
    task = evidence.experiment.removeprefix("s13-table1-")
    return f"{task} {PUBLISHED[task][which]}"


def _best(evidence: Evidence) -> Mapping[tuple[str, float | None], Values]:
    """Final training error by (method, mu_max), each at its best learning rate."""
    return {(str(m), mu): values for (m, mu), values in evidence.tuned(ERROR, ("method", "mu_max")).items()}


def nag_beats_cm(evidence: Evidence) -> Verdict:
    """Table 1: at mu_max .995 NAG ends lower than CM."""
    best = _best(evidence)
    a, b = best.get(("nag", 0.995), {}), best.get(("cm", 0.995), {})
    return below("NAG ends lower than CM at mu_max .995", _published(evidence, 0), ("NAG", a), ("CM", b))


def nag_beats_cm_at_99(evidence: Evidence) -> Verdict:
    """Table 1: at mu_max .99 NAG ends lower than CM."""
    best = _best(evidence)
    a, b = best.get(("nag", 0.99), {}), best.get(("cm", 0.99), {})
    return below("NAG ends lower than CM at mu_max .99", _published(evidence, 1), ("NAG", a), ("CM", b))


def larger_mu_is_better(evidence: Evidence) -> Verdict:
    """Table 1: for NAG .99 ends lower than .9."""
    best = _best(evidence)
    return below(
        "for NAG mu_max .99 ends lower than .9",
        _published(evidence, 2),
        (".99", best.get(("nag", 0.99), {})),
        (".9", best.get(("nag", 0.9), {})),
    )


def momentum_beats_sgd(evidence: Evidence) -> Verdict:
    """Table 1: NAG at .9 ends lower than plain gradient descent."""
    best = _best(evidence)
    sgd = next((values for (method, _), values in best.items() if method == "sgd"), {})
    return below(
        "NAG at mu_max .9 ends lower than SGD",
        _published(evidence, 3),
        ("NAG", best.get(("nag", 0.9), {})),
        ("SGD", sgd),
    )


def last_phase(evidence: Evidence) -> Verdict:
    """Table 2: lowering mu to .9 at the end gains, against going on at mu_max from the same state.

    Trials of one seed share init and batches whatever their mu_max: a seed is one pair, its medians over mu_max.
    """
    gains: dict[float, list[float]] = {}
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for run in evidence.runs:
        after, on = run.value(f"fork/lowered/{ERROR}"), run.value(ERROR)
        by_seed.setdefault(run.replicate, []).append((after, on))
        if math.isfinite(on):
            gains.setdefault(float(run.params["mu_max"]), []).append(1 - after / on)
    lowered, control = ({seed: median(pair[i] for pair in pairs) for seed, pairs in by_seed.items()} for i in (0, 1))
    each = ", ".join(f"{100 * median(shares):.1f}% at mu_max {mu:g}" for mu, shares in sorted(gains.items()))
    return below(
        "a last phase at mu = .9 ends lower than going on at mu_max from the same state",
        "curves .096 -> .074 (before, after; no control)",
        ("last phase", lowered),
        ("going on", control),
        f"median gain {each}",
    )


def lowering_early(evidence: Evidence) -> Verdict:
    """Section 3: lowering mu early hurts the final error."""
    cells = evidence.cells(ERROR, ("tail_updates",))
    tails = sorted(tail for (tail,) in cells if tail)
    if len(tails) < 2:
        return judged(
            "mu lowered only at the end ends lower than lowered early", "in words", "not run", False, of=({},)
        )
    return below(
        "mu lowered only at the end ends lower than lowered early",
        "in words",
        (f"last {tails[0]} updates", cells[tails[0],]),
        (f"last {tails[-1]}", cells[tails[-1],]),
    )


def scale_one_works(evidence: Evidence) -> Verdict:
    """Table 3: sparse init scaled by .25 and .5 does not leave the mean image, 1 does."""
    cells = evidence.cells(ERROR, ("init_scale",))
    one, quarter, half = (cells.get((scale,), {}) for scale in (1.0, 0.25, 0.5))
    measured = ", ".join(f"x{scale:g}: {spread(values)}" for (scale,), values in sorted(cells.items()))
    return judged(
        "sparse init x .25 and x .5 fail with 11 hidden layers, x 1 works",
        "16 / 16 / .074 (x .25, .5, 1)",
        measured,
        min(middle(quarter), middle(half)) > 3 * middle(one),
        "fails: three times the median of x 1",
        of=(one, quarter, half),
    )


def larger_scales(evidence: Evidence) -> Verdict:
    """Table 3: a factor of 2 costs little."""
    cells = evidence.cells(ERROR, ("init_scale",))
    one, two, half = (cells.get((scale,), {}) for scale in (1.0, 2.0, 0.5))
    measured = f"x1 {spread(one)}, x2 {spread(two)}"
    return judged(
        "sparse init x 2 still trains",
        ".083 (x 1: .074)",
        measured,
        middle(two) < middle(half) / 2,
        "trains: half the median of x .5",
        of=(one, two, half),
    )


def largest_scale(evidence: Evidence) -> Verdict:
    """Table 3: a factor of 4 ends higher, but trains."""
    cells = evidence.cells(ERROR, ("init_scale",))
    one, four, half = (cells.get((scale,), {}) for scale in (1.0, 4.0, 0.5))
    return judged(
        "sparse init x 4 ends higher than x 1 but still trains",
        ".35 (x 1: .074)",
        f"x1 {spread(one)}, x4 {spread(four)}",
        middle(one) < middle(four) < middle(half) / 2,
        "trains: half the median of x .5; S13's text says that 5 gives nothing sensible",
        of=(one, four, half),
    )


def neither_alone(evidence: Evidence) -> Verdict:
    """Section 3: good init and momentum together beat either alone."""
    best = evidence.tuned(ERROR, ("init", "method"))
    both = best.get(("sparse", "nag"), {})
    alone = {"init alone": best.get(("sparse", "sgd"), {}), "momentum alone": best.get(("standard", "nag"), {})}
    name = min(alone, key=lambda each: middle(alone[each]))
    neither = best.get(("standard", "sgd"), {})
    found = below(
        "sparse init with NAG ends lower than either alone",
        "in words",
        ("both", both),
        (f"the better one, {name}", alone[name]),
    )
    rest = ", ".join(f"{each} {spread(values)}" for each, values in {**alone, "neither": neither}.items())
    return Verdict(found.claim, found.published, found.measured, found.verdict, rest)


def rnn_neither_alone(evidence: Evidence) -> Verdict:
    """Section 4: the same for recurrent nets."""
    cells = evidence.cells("valid_error", ("init", "mu_max"), LAST)
    both = cells.get(("echo", 0.995), {})
    alone = {"init alone": cells.get(("echo", 0.0), {}), "momentum alone": cells.get(("standard", 0.995), {})}
    name = min(alone, key=lambda each: middle(alone[each]))
    found = below(
        "echo-state init with NAG .995 errs less than either alone",
        "in words",
        ("both", both),
        (f"the better one, {name}", alone[name]),
    )
    return Verdict(
        found.claim,
        found.published,
        found.measured,
        found.verdict,
        f"other: {', '.join(f'{k} {spread(v)}' for k, v in alone.items())}",
    )


def _echo(evidence: Evidence) -> dict[float, Values]:
    """End of NAG from echo-state init, by mu0, each at its best learning rate."""
    nag = evidence.select(method="nag", init="echo")
    return {mu: values for (mu,), values in nag.tuned("valid_error", ("mu_max",), last=LAST).items()}


def add_solved(evidence: Evidence) -> Verdict:
    """Table 5, add: NAG at .995 solves it."""
    values = _echo(evidence).get(0.995, {})
    return judged(
        "add is solved by NAG at mu0 = .995: zero-one loss under .01",
        ".00025 (T = 80)",
        spread(values),
        middle(values) < 0.01,
        "median over seeds of the median of the last 5 reports",
        of=(values,),
    )


def add_not_without(evidence: Evidence) -> Verdict:
    """Table 5, add: no momentum leaves it unsolved."""
    values = _echo(evidence).get(0.0, {})
    return judged("add stays above .5 at mu0 = 0", ".39 (T = 80)", spread(values), middle(values) > 0.5, of=(values,))


def spectral_radius(evidence: Evidence) -> Verdict:
    """Section 4: a spectral radius of 1.1 suits; much smaller or larger ones do worse."""
    cells = evidence.cells("valid_error", ("spectral_radius",), LAST)
    measured = ", ".join(f"{radius:g}: {spread(values)}" for (radius,), values in sorted(cells.items()))
    good = middle(cells.get((1.1,), {}))
    others = [middle(values) for (radius,), values in cells.items() if radius != 1.1]
    return judged("spectral radius 1.1 errs least", "in words", measured, bool(others) and good < min(others))


def input_scale(evidence: Evidence) -> Verdict:
    """Table 4: with distractors the input weights must start small."""
    cells = evidence.cells("valid_error", ("input_scale",), LAST)
    others = {scale: values for (scale,), values in cells.items() if scale not in (0.001, 0.1)}
    rest = "".join(f"{scale:g}: {spread(values)}; " for scale, values in sorted(others.items()))
    return below(
        "input weights of .001 err less than of .1 on add",
        "in words (Table 4, T = 80)",
        (".001", cells.get((0.001,), {})),
        (".1", cells.get((0.1,), {})),
        f"{rest}a short sequence has few distractors, and inputs are centred",
    )


def memory(evidence: Evidence) -> Verdict:
    """Table 5, memory tasks: NAG at .995 remembers."""
    cells = evidence.tuned("valid_recall_errors", ("method", "mu_max"), last=LAST)
    measured = ", ".join(
        f"{method} {mu:g}: {spread(values)}" for (method, mu), values in sorted(cells.items(), key=str)
    )
    bias = 2.5 if "mem-5" in evidence.experiment else 8.0
    return judged(
        f"NAG at mu0 = .995 leaves the bias-only error of {bias:g} behind by half",
        ".63 (mem-5, T = 200), .00005 (mem-20, T = 80)",
        measured,
        middle(cells.get(("nag", 0.995), {})) < bias / 2,
    )


def oblong(evidence: Evidence) -> Verdict:
    """Fig. 2: CM oscillates along the steep axis, NAG nearly not."""
    swing = evidence.values["swing"]
    measured = ", ".join(f"{m} {number(swing[m])}" for m in ("sgd", "nag", "cm"))
    return judged(
        "CM swings along the steep axis, NAG hardly more than gradient descent",
        "Fig. 2",
        measured,
        swing["nag"] < 2 * swing["sgd"] and swing["cm"] > 3 * swing["nag"],
        "path length along the steep axis over the distance",
    )


def theorem(evidence: Evidence) -> Verdict:
    """Theorem 2.1: NAG is CM with mu (1 - eps lambda) in each eigen-direction."""
    distance = evidence.values["twin_distance"]
    return judged(
        "NAG is CM with mu (1 - eps lambda) in each eigen-direction",
        "Theorem 2.1",
        f"largest difference {distance:.1g}",
        distance < 1e-12,
    )


def conjugate(evidence: Evidence) -> Verdict:
    """Fig. 5: CG from zero beats NAG from zero on the damped quadratic, but not dramatically."""
    cg, nag = evidence.values["conjugate_gradients"], evidence.values["nesterov"]
    reached = next((step for step, value in enumerate(cg) if value <= nag[-1]), None)
    return judged(
        "CG ends lower than NAG on the same damped quadratic, not dramatically",
        "Fig. 5",
        f"decrease {number(-cg[-1])} / {number(-nag[-1])} in {len(cg) - 1} steps; CG is there after {reached}",
        cg[-1] < nag[-1] and nag[-1] < 0.5 * cg[-1],
        f"the quadratic is our own, after {evidence.values['iterations']:.0f} iterations of HF",
    )


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "s13-factorial": (neither_alone,),
    "s13-factorial-rnn": (rnn_neither_alone, add_solved, add_not_without),
    **{
        f"s13-table1-{task}": (nag_beats_cm, nag_beats_cm_at_99, larger_mu_is_better, momentum_beats_sgd)
        for task in ("curves", "mnist", "faces")
    },
    "s13-table2": (last_phase,),
    "s13-table3": (scale_one_works, larger_scales, largest_scale),
    "s13-early-lowering": (lowering_early,),
    "s13-table5-add": (add_solved, add_not_without),
    "s13-table5-mul": (),
    "s13-table5-mem-5": (memory,),
    "s13-table5-mem-20": (memory,),
    "s13-rnn-spectral-radius": (spectral_radius,),
    "s13-rnn-input-scale": (input_scale,),
    "s13-fig2": (oblong, theorem),
    "s13-fig5": (conjugate,),
}
