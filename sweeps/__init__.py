"""Search and results: the spec, the board, the store, and Ray Tune, Optuna and MLflow around them.

In a notebook: `spec = sweeps.load("spec.yaml")`, `sweep = sweeps.Sweep.run(spec)` or `sweeps.open(folder)`, then
`sweep.trials`, `sweep.rows` and `sweep.best(5)` as data frames.
"""

from typing import Any

__all__ = ["Sweep", "load", "open"]

_PLACES = {"load": ("sweeps.spec", "load"), "open": ("sweeps.sweep", "Sweep"), "Sweep": ("sweeps.sweep", "Sweep")}


def __getattr__(name: str) -> Any:
    """The notebook functions, imported when first used so that `import sweeps` stays instant.

    There is no `sweeps.run(spec)`: that name is the module `sweeps.run` once anything has imported it.
    """
    if name not in _PLACES:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
