"""What an arm is called in front of people: `NAG, µ_max 0.99, lr 0.012, sparse, depth 7`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from sweeps.history import Trial

_METHODS = {"adam": "Adam", "adamw": "AdamW", "diagonal": "diagonal"}
_WORDS = {
    "mu_max": "µ_max {}", "lr": "lr {}", "init": "{}", "depth": "depth {}", "width": "width {}", "widths": "{}",
    "activation": "{}", "batch": "batch {}", "init_scale": "init × {}", "fan_in": "fan-in {}", "kappa": "κ {}",
    "mu_first": "first µ {}", "mu_schedule": "µ {}", "tail_mu": "tail µ {}", "weight_decay": "weight decay {}",
    "spectral_radius": "radius {}", "input_scale": "inputs × {}", "eta_base": "η {}", "lr_schedule": "lr {}",
    "hf_damping": "damping {}", "hf_cg_max": "{} CG steps", "hf_cg_decay": "decay {}", "hf_l2": "L2 {}",
    "hf_chunks": "{} chunks", "hf_structural": "structural {}",
}  # fmt: skip
"""How a parameter is said; the order is the one they are said in, others come after."""
_FEW = 3
"""Parameters that a sentence names."""


def label(trial: Trial, space: Iterable[str] = ()) -> str:
    """A trial's point in words: its method, then its parameters, the papers' ones first, the rest as in the space."""
    kind = (trial.config.get("method") or {}).get("kind") or trial.params.get("method")
    words = [method_name(str(kind))] if kind else []
    order = [*_WORDS, *space, *trial.params]
    for name in dict.fromkeys(order):
        if name in trial.params and name != "method":
            words.append(_WORDS.get(name, f"{name} {{}}").format(shown(trial.params[name])))
    return ", ".join(words) or "the spec's own values"


def short(label: str, kind: str, name: str) -> str:
    """What a sentence calls an arm: `NAG (µ_max 0.99, lr 0.012)`, `HF`, or another sweep by its name."""
    method, *params = label.split(", ")
    if kind == "hf":
        return method if name == "hf" else f"{method} ({name})"
    words = [method, *params] if kind == "sweep" else params
    within = f" ({', '.join(words[:_FEW])})" if words else ""
    return f"{name if kind == 'sweep' else method}{within}"


def method_name(kind: str) -> str:
    """A method as people write it: `NAG`, `Adam`."""
    return _METHODS.get(kind, kind.upper())


def shown(value: Any) -> str:
    """A value in three significant digits, those of the distance to 1 where it is near 1 (0.9985); lists as 400-100."""
    if isinstance(value, list | tuple):
        return "-".join(map(shown, value))  # commas part the parameters of a label
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if 0.9 < value < 1:
        return f"{value:.{2 - math.floor(math.log10(1 - value))}f}".rstrip("0")
    return f"{value:.3g}"
