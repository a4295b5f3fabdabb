"""A comparison in MLflow's terms: what the parent run says of its verdict, and how far each trial is from HF.

`gap_to_hf` is an error over the geometric mean of the confirmed HF runs (of a metric that is to be large, its inverse):
below 1 is better than HF, on a trial and on a sweep alike, so that MLflow's table sorts both by one column.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

from sweeps.comparison import Arm, Comparison, Contrast
from sweeps.history import Trial

FILE = "comparison.json"
GAP = "gap_to_hf"
VERDICT = "musweep.verdict"
NOTE = "mlflow.note.content"
_SINGLE = ("verdict_ratio", "verdict_low", "verdict_high", "best_confirmed", "hf_confirmed", GAP)
_PER_ARM = ("confirmed/", "stuck/")
_ODD = re.compile(r"[^A-Za-z0-9_ .-]|\.(?=\.|$)")  # MLflow takes no others in a metric's name, nor one like ..
_MOST_ROWS = 20  # of a table in a description, which MLflow would cut
_MOST_WORDS = 600
_MOST = 8000


def read(folder: Path) -> Comparison | None:
    """A folder's comparison, None if there is none that this musweep can read: MLflow does without it."""
    try:
        return Comparison.from_dict(json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def ours(name: str) -> bool:
    """Whether a parent's metric is made from the comparison, and so out of date when a new one lacks it."""
    return name in _SINGLE or name.startswith(_PER_ARM)


def hf_arm(comparison: Comparison) -> Arm | None:
    """The confirmed HF point: the one that the primary contrast is against, else the first."""
    first = comparison.primary
    arms = sorted(comparison.arms, key=lambda arm: first is None or arm.name != first.b)
    return next((arm for arm in arms if arm.kind == "hf"), None)


def _best_arm(comparison: Comparison) -> Arm | None:
    """The point named beforehand, the search's best; not the best of the confirmed ones, which would be lucky."""
    first = comparison.primary
    arms = sorted(comparison.arms, key=lambda arm: first is None or arm.name != first.a)
    return next((arm for arm in arms if arm.kind == "point"), None)


def _gap(comparison: Comparison, value: float | None) -> float | None:
    arm = hf_arm(comparison)
    if arm is None or not arm.typical or value is None or not math.isfinite(value) or value <= 0:
        return None
    return value / arm.typical if comparison.mode == "min" else arm.typical / value


def gaps(comparison: Comparison, trials: Iterable[Trial]) -> dict[int, float]:
    """`gap_to_hf` by trial, at its last report; of confirmed trials at what was compared. Diverged ones have none."""
    here = [arm for arm in comparison.arms if arm.kind != "sweep"]
    confirmed = {n: value for arm in here for n, value in zip(arm.trials, arm.values, strict=True)}
    found = {}
    for trial in trials:
        if trial.state not in ("complete", "stopped"):
            continue
        last = trial.metrics[max(trial.metrics)] if trial.metrics else {}
        gap = _gap(comparison, confirmed.get(trial.number, last.get(comparison.metric)))
        if gap is not None:
            found[trial.number] = gap
    return found


def metrics(comparison: Comparison) -> dict[str, float]:
    """The parent's numbers: the primary contrast's ratio and interval, and each arm's error and share of stuck runs."""
    first, best, hf = comparison.primary, _best_arm(comparison), hf_arm(comparison)
    best_value = best.typical if best else None
    found: dict[str, float | None] = {"best_confirmed": best_value, "hf_confirmed": hf.typical if hf else None}
    if first is not None:
        found |= {"verdict_ratio": first.ratio, "verdict_low": first.low, "verdict_high": first.high}
    found[GAP] = _gap(comparison, best_value)
    for arm in comparison.arms:
        name = _ODD.sub("_", arm.name)
        found |= {f"confirmed/{name}": arm.typical, f"stuck/{name}": arm.stuck.value}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def tags(comparison: Comparison) -> dict[str, str]:
    """The parent's words. Without a contrast the verdict is `no verdict`, and the sentence says why."""
    first = comparison.primary
    if first is None:
        said = {VERDICT: "no verdict", f"{VERDICT}.sentence": "; ".join(comparison.refusals)}
    else:
        said = {
            VERDICT: first.verdict,
            f"{VERDICT}.sentence": first.sentence,
            f"{VERDICT}.of": first.a,
            f"{VERDICT}.against": first.b,
            f"{VERDICT}.decided_by": first.decided_by,
        }
    return {name: value for name, value in (said | {NOTE: note(comparison)}).items() if value}


def note(comparison: Comparison) -> str:
    """The parent's description, in Markdown: verdict, arms, further contrasts, what is to be said of the data."""
    first = comparison.primary
    parts = [f"**{_cut(first.sentence)}**"] if first else []
    if comparison.arms:
        parts.append(_arms(comparison))
    if others := [each for each in comparison.contrasts if not each.primary]:
        lines = [f"- {_cut(each.sentence)}" for each in others[:_MOST_ROWS]]
        parts.append("\n".join([*lines, *_more(others)]))
    if comparison.note:
        parts.append(_cut(comparison.note))
    if comparison.refusals:
        parts.append("\n".join(f"- Not compared: {_cut(why)}" for why in comparison.refusals[:_MOST_ROWS]))
    text = "\n\n".join(parts)
    return text if len(text) <= _MOST else text[: _MOST - 3] + "..."


def _arms(comparison: Comparison) -> str:
    """A row for each arm: geometric mean of the finishers with its interval, and what else decides."""
    head = ["", "what", comparison.metric, "95%", "runs", "stuck", "in the search", "work", "seconds"]
    rows = [head, ["---"] * len(head)]
    for arm in comparison.arms[:_MOST_ROWS]:
        between = "" if arm.low is None or arm.high is None else f"{arm.low:.4g} to {arm.high:.4g}"
        typical = "" if arm.typical is None else f"{arm.typical:.4g}"
        searched = "" if arm.searched is None else f"{arm.searched:.4g}"
        rows.append(
            [arm.name, arm.label, typical, between, str(len(arm.trials)), str(arm.stuck.count), searched,
             f"{arm.work:.4g}", f"{arm.seconds:.3g}"]
        )  # fmt: skip
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, *_more(comparison.arms)])


def _more(things: tuple[Arm, ...] | list[Contrast]) -> list[str]:
    left = len(things) - _MOST_ROWS
    return ["", f"... and {left} more in {FILE}"] if left > 0 else []


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_WORDS else text[: _MOST_WORDS - 3] + "..."
