"""Claims of Glorot and Bengio 2010 (GB10); figures as in its Table 1 and text, see SCIENCE 5."""

from __future__ import annotations

import math

from dashboards.evidence import Evidence, Values, middle, number, spread
from dashboards.verdicts import Claim, Verdict, below, judged

CHANCE = 5 / 6
"""Error of the best constant answer on Shapeset-3x2: a single shape has probability 1/6 (SCIENCE 5)."""


def chosen(evidence: Evidence, activation: str, init: str) -> Values:
    """Test error at the lr with the smallest median valid error: chosen on valid, test read once."""
    mine = evidence.select(activation=activation, init=init)
    valid = {lr: values for (lr,), values in mine.cells("valid_error", ("lr",)).items()}
    best = min(valid, key=lambda lr: middle(valid[lr]), default=None)
    return {} if best is None else mine.select(lr=best).cells("test_error", ("lr",))[best,]


def percent(values: Values) -> Values:
    """Shares as percentages."""
    return {replicate: 100 * value for replicate, value in values.items()}


PUBLISHED = {
    "shapeset": ("Shapeset 15.60 / 27.15", "softsign*, softsign N*, tanh N* of five"),
    "mnist": ("MNIST 1.64 / 1.76, not told apart", "all but sigmoid"),
    "cifar10": ("CIFAR-10 52.92 / 55.9", "tanh N* of five"),
    "small-imagenet": ("ImageNet 68.57 / 70.58", "softsign*, softsign N*, tanh N* of five"),
}
"""Of Table 1 by task: test error (%) of tanh with normalized and with standard init, and what is bold."""


def _published(evidence: Evidence) -> tuple[str, str]:
    return PUBLISHED[evidence.experiment.removeprefix("gb10-table1-")]


def normalized_beats_standard(evidence: Evidence) -> Verdict:
    """Table 1: tanh with normalized init errs less than with standard."""
    a, b = (percent(chosen(evidence, "tanh", init)) for init in ("normalized", "standard"))
    return below(
        "tanh with normalized init errs less than with standard (%)",
        _published(evidence)[0],
        ("N", a),
        ("standard", b),
    )


def sigmoid_fails(evidence: Evidence) -> Verdict:
    """Table 1: sigmoid nets of depth 5 stay at chance."""
    values = percent(chosen(evidence, "sigmoid", "standard"))
    return judged(
        "sigmoid at depth 5 stays above 80% error",
        "82.61 (chance 83.33)",
        spread(values),
        middle(values) > 80,
        of=(values,),
    )


def softsign_and_tanh_n(evidence: Evidence) -> Verdict:
    """Table 1: softsign depends less on its init than tanh."""
    gap = {
        name: middle(chosen(evidence, name, "standard")) - middle(chosen(evidence, name, "normalized"))
        for name in ("softsign", "tanh")
    }
    if not all(map(math.isfinite, gap.values())):
        return judged(
            "softsign gains less from normalized init than tanh", "0.21 / 11.55 points", "not run", False, of=({},)
        )
    measured = f"softsign {100 * gap['softsign']:.1f}, tanh {100 * gap['tanh']:.1f} points"
    return judged(
        "softsign gains less from normalized init than tanh",
        "0.21 / 11.55 points",
        measured,
        gap["softsign"] < gap["tanh"],
    )


def differ(errors: tuple[float, float], examples: int) -> float:
    """Two-sided p that two test errors over so many examples each are equal: the z test of two proportions."""
    mean = sum(errors) / 2
    deviation = math.sqrt(2 * mean * (1 - mean) / examples)
    return math.erfc(abs(errors[0] - errors[1]) / deviation / math.sqrt(2)) if deviation else 1.0


def bold(evidence: Evidence) -> Verdict:
    """Table 1's bold: which of the five cannot be told from the best at p = .005."""
    kinds = [
        ("softsign", "standard"),
        ("softsign", "normalized"),
        ("tanh", "standard"),
        ("tanh", "normalized"),
        ("sigmoid", "standard"),
    ]
    found = {f"{a}{' N' * (i == 'normalized')}": middle(chosen(evidence, a, i)) for a, i in kinds}
    found = {name: error for name, error in found.items() if math.isfinite(error)}
    best = min(found, key=lambda name: found[name])
    examples = int(evidence.values.get("test_examples", 10_000))
    same = [name for name, error in found.items() if differ((error, found[best]), examples) > 0.005]
    measured = ", ".join(f"{name} {100 * error:.1f}{'*' * (name in same)}" for name, error in found.items())
    return judged(
        "tanh N is among the best, sigmoid is not (* cannot be told from the best at p = .005)",
        _published(evidence)[1],
        measured,
        "tanh N" in same and "sigmoid" not in same,
        f"median test error over seeds, test of two proportions over {examples} examples",
    )


def gradients_vanish(evidence: Evidence) -> Verdict:
    """Fig. 7: back-propagated gradients at init shrink with depth under standard init only."""
    ratio = evidence.values["gradient_sd_first_over_last"]
    holds = max(ratio["standard"]) < 0.5 and min(ratio["normalized"]) > 0.5
    measured = ", ".join(f"{name} {number(sorted(values)[len(values) // 2])}" for name, values in ratio.items())
    return judged(
        "back-propagated gradients at init shrink towards the inputs under standard init, not under normalized",
        "Fig. 7",
        f"sd in layer 1 over layer 5: {measured}",
        holds,
        "every seed",
    )


def weight_gradients_even(evidence: Evidence) -> Verdict:
    """Fig. 8: weight gradients are about as large in every layer even under standard init."""
    ratio = evidence.values["weight_gradient_sd_first_over_last"]["standard"]
    mid = sorted(ratio)[len(ratio) // 2]
    return judged(
        "weight gradients at init are about equal across layers even under standard init",
        "Fig. 8",
        f"sd in layer 2 over layer 5: {number(mid)}",
        0.5 < mid < 2,
    )


def activations_even(evidence: Evidence) -> Verdict:
    """Fig. 6: activations at init shrink upwards under standard init only."""
    ratio = evidence.values["activation_sd_last_over_first"]
    measured = ", ".join(f"{name} {number(sorted(values)[len(values) // 2])}" for name, values in ratio.items())
    return judged(
        "activations at init shrink from layer to layer under standard init, not under normalized",
        "Fig. 6",
        f"sd in layer 5 over layer 1: {measured}",
        max(ratio["standard"]) < 0.5 < min(ratio["normalized"]),
    )


def jacobian(evidence: Evidence) -> Verdict:
    """Section 4.2.1: mean singular value of a layer's Jacobian, about .8 normalized and .5 standard."""
    found = evidence.values["jacobian_mean_singular_value"]
    measured = "; ".join(f"{task}: {v['normalized']:.3f}, {v['standard']:.3f}" for task, v in found.items())
    near = [task for task, v in found.items() if abs(v["normalized"] - 0.8) < 0.05 and abs(v["standard"] - 0.5) < 0.05]
    return judged(
        "mean singular value of a layer's Jacobian at init, normalized and standard",
        "about .8, about .5",
        measured,
        bool(near),
        f"within .05 on {' and '.join(near) or 'none'}; the paper names no data for it; before tanh: .849, .490",
    )


def plateaus(evidence: Evidence) -> Verdict:
    """Fig. 5: the quadratic cost has more plateau than cross-entropy."""
    shares = evidence.values["plateau_share"]
    pairs = [dict(enumerate(shares[name])) for name in ("cross_entropy", "quadratic")]
    return below(
        "the quadratic cost has more plateau than cross-entropy",
        "Fig. 5",
        ("cross-entropy", pairs[0]),
        ("quadratic", pairs[1]),
        "share of the surface of two weights with under 5% of the steepest slope",
    )


def kernel_machine(evidence: Evidence) -> Verdict:
    """Section 5: a deep tanh N net errs less than an RBF-SVM on the same Shapeset examples."""
    svm, net = evidence.values["svm_error"], evidence.values["net_error"]
    return judged(
        "depth-5 tanh N errs less than an RBF-SVM on the same examples (%)",
        "50.47 / 59.47 (100,000 examples)",
        f"{100 * net:.1f} / {100 * svm:.1f} ({evidence.values['examples']} examples)",
        net < svm,
    )


def widths(evidence: Evidence) -> Verdict:
    """Section 5: the same gains when width grows or shrinks with depth."""
    cells = evidence.tuned("valid_error", ("widths", "init"))
    names = sorted({name for name, _ in cells})
    gains = {n: middle(cells.get((n, "standard"), {})) - middle(cells.get((n, "normalized"), {})) for n in names}
    measured = ", ".join(f"{name} {100 * gain:.1f}" for name, gain in gains.items())
    return judged(
        "normalized init gains over standard whether widths grow or shrink",
        "in words",
        f"points of valid error: {measured}",
        bool(gains) and min(gains.values()) > 0,
    )


def pretraining(evidence: Evidence) -> Verdict:
    """Fig. 11: unsupervised pre-training errs less than the best purely supervised net."""
    cells = evidence.tuned("valid_error", ("init",))
    return below(
        "denoising pre-training errs less than normalized init",
        "Fig. 11",
        ("pre-trained", percent(cells.get(("pretrained",), {}))),
        ("normalized", percent(cells.get(("normalized",), {}))),
    )


CLAIMS: dict[str, tuple[Claim, ...]] = {
    **{
        f"gb10-table1-{task}": (normalized_beats_standard, sigmoid_fails, softsign_and_tanh_n, bold)
        for task in ("shapeset",)
    },
    **{f"gb10-table1-{task}": (normalized_beats_standard, bold) for task in ("mnist", "cifar10", "small-imagenet")},
    "gb10-fig5": (plateaus,),
    "gb10-init": (activations_even, gradients_vanish, weight_gradients_even, jacobian),
    "gb10-svm": (kernel_machine,),
    "gb10-widths": (widths,),
    "gb10-fig11": (pretraining,),
}
