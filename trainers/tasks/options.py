"""What a task's options may be, checked without reading data or importing numpy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainers.config import TASKS


class TaskError(ValueError):
    """Options or data that a task cannot use; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options of one task.

    `examples` keeps only the first so many training examples. `file` is the user's own data. `seed` is for
    what is drawn: the images of `curves`, the split of `digits`. `holdout` is how many training examples, the
    last ones, become the valid part where the data bring none; at 0 training takes them all, as the papers do
    for autoencoders, and the valid part repeats the last training examples (`Task.held_out` is then False).
    """

    examples: int | None = None
    file: str | None = None
    seed: int = 0
    holdout: int | None = None


# Option -> the tasks that know it, and why the others do not.
_KNOWN: dict[str, tuple[tuple[str, ...], str]] = {
    "examples": (tuple(TASKS), ""),
    "file": (("curves", "mnist-ae", "mnist"), "its data come with scikit-learn"),
    "seed": (("curves", "digits"), "its examples and their order are fixed"),
    "holdout": (("curves", "mnist-ae", "mnist"), "its three parts are fixed by the seed"),
}
_SMALLEST = {"examples": 1, "seed": 0, "holdout": 0}


def resolve(name: str, options: Mapping[str, Any]) -> Options:
    """Check the options of a task; None stands for a default.

    Raises TaskError for an unknown task or option, one that this task does not take, and a wrong value.
    """
    if name not in TASKS:
        raise TaskError(f"task {name!r}: one of {', '.join(TASKS)}{_nearest(name, TASKS)}")
    for key, value in options.items():
        if key not in _KNOWN:
            raise TaskError(f"task {name}: option {key!r}: one of {', '.join(_KNOWN)}{_nearest(key, _KNOWN)}")
        _check(name, key, value)
    given = {key: value for key, value in options.items() if value is not None}
    if "file" in given:
        given["file"] = str(given["file"])
    checked = Options(**given)
    if name == "curves":
        if checked.file and checked.seed:
            raise TaskError(f"task curves: option seed={checked.seed}: nothing is drawn when a file is given")
        if checked.holdout is not None and not checked.file:
            raise TaskError(
                f"task curves: option holdout={checked.holdout}: generated curves bring their own valid part"
            )
    return checked


def _check(name: str, key: str, value: Any) -> None:
    tasks, reason = _KNOWN[key]
    if value is None or (key == "seed" and value == 0 and not isinstance(value, bool)):
        return
    if name not in tasks:
        raise TaskError(f"task {name}: option {key}={value}: this task takes none, {reason}")
    if key == "file":
        if not isinstance(value, str) and not hasattr(value, "__fspath__"):
            raise TaskError(f"task {name}: option file={value!r}: must be a path")
    elif isinstance(value, bool) or not isinstance(value, int) or value < _SMALLEST[key]:
        raise TaskError(f"task {name}: option {key}={value!r}: must be a whole number, {_SMALLEST[key]} or more")


def _nearest(word: str, allowed: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, allowed, 1)
    return f"; did you mean {near[0]}?" if near else ""
