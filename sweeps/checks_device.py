"""What a spec may say of where its trials compute, and how precisely."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.checks_model import shape_of
from sweeps.errors import Problem
from sweeps.schema import Fields


def problems(spec: Fields) -> Iterator[Problem]:
    """A GPU that nobody reserves; an engine that the GPU has no use for."""
    if spec.resources.device == "cuda" and not spec.resources.gpu:
        yield Problem(
            "resources.gpu", "device cuda, but workers reserve no GPU", spec.resources.gpu, "a number above 0"
        )


def precision_problems(spec: Fields) -> Iterator[Problem]:
    """A precision that the nets or the engine do not have; the task is known."""
    precision = spec.training.precision
    if precision == "float32":
        return
    if shape_of(spec).kind == "rnn" or ":" in (spec.model.kind or ""):
        yield Problem("training.precision", "is of feed-forward and residual nets only", precision, "float32")
    if spec.resources.engine == "loop":
        wrong = f"has float32 only, and training.precision is {precision}"
        yield Problem("resources.engine", wrong, "loop", "auto, stacked")


def warnings(spec: Fields) -> Iterator[str]:
    """Precisions where they make nothing faster."""
    precision = spec.training.precision
    if precision != "float32" and not spec.resources.gpu:
        yield f"training.precision: on a CPU {precision} shows what it does to errors, and is slower than float32"
    methods = spec.space["method"].values or [] if "method" in spec.space else [spec.training.method]
    if precision != "float32" and "hf" in methods:
        yield f"training.precision: trials of hf compute in float32, not in {precision}"
