"""Every task by name: where it lives, which options it takes, and what those say of it before data are read.

The one place to register a task: its TaskInfo in `config.TASKS`, its entry in `ENTRIES` here. No numpy: a spec is
checked in milliseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from trainers.config import LOSSES, TASKS, TaskInfo


class TaskError(ValueError):
    """Options or data that a task cannot use; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options of one task; None stands for the task's own default.

    `examples` keeps only the first so many training examples. `file` is the user's own data, a file or a folder.
    `seed` is for what is drawn: images, sequences, the order of examples before they are split. `holdout` is how
    many training examples, the last ones, become the valid part where the data bring none; at 0 training takes them
    all, as the papers do for autoencoders, and the valid part repeats the last training examples (`Task.held_out` is
    then False). Of a task drawn online it is the size of the valid part and of the test part.

    `size` is the side of drawn images in pixels, `length` a parameter T of sequences, `classes` how many classes the
    user's data have, `loss` what is trained on them. `centre` says from what of a sequence task the mean is
    subtracted (S13 section 4). `options` go to a Python task's function by name.
    """

    examples: int | None = None
    file: str | None = None
    seed: int = 0
    holdout: int | None = None
    size: int | None = None
    length: int | None = None
    classes: int | None = None
    loss: str | None = None
    centre: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A task's place: `module.load(name, options, cache)` of `trainers.tasks` gives its cache.Data, or the whole Task.

    `options` are those it knows, `holdout` what becomes the valid part when the data bring none and the spec does
    not say, `shaped` what options change in its TaskInfo.
    """

    module: str
    options: tuple[str, ...]
    holdout: int = 0
    shaped: Callable[[TaskInfo, Options], TaskInfo] | None = None


def _curves(info: TaskInfo, options: Options) -> TaskInfo:
    """Of the paper's encoder stay the layers narrower than the image: 196-100-50-25-6 at size 14 (SCIENCE 11)."""
    pixels = (options.size or 28) ** 2
    encoder = (pixels, *(width for width in info.encoder[1:] if width < pixels))
    return replace(info, inputs=pixels, outputs=pixels, encoder=encoder)


LENGTHS = {
    "add": 80, "mul": 80, "xor": 80, "mem-5": 200, "mem-20": 80, "order": 80, "order-3bit": 80, "permutation": 80,
}  # fmt: skip
"""The T of each sequence task when the spec does not say (S13 Table 5)."""

CENTRES = {
    "add": ("both", "inputs", "outputs", "none"),
    "mul": ("both", "inputs", "outputs", "none"),
    "xor": ("inputs", "none"),
}
"""What can be centred, the default first: outputs only where they are numbers."""


def _sequence(info: TaskInfo, options: Options) -> TaskInfo:
    """How many steps are read: up to 11T/10; T blanks and, twice, the symbols; T; all but the last of T (SCIENCE 3)."""
    length = options.length or LENGTHS[info.name]
    if info.recall:
        return replace(info, steps=length + 2 * info.recall)
    if info.every_step:
        return replace(info, steps=length - 1)
    return replace(info, steps=length * 11 // 10 if info.name in CENTRES else length)


_DRAWN = ("examples", "seed", "holdout", "length")


def _classes(info: TaskInfo, options: Options) -> TaskInfo:
    return replace(info, outputs=options.classes or info.outputs)


def _shapeset(info: TaskInfo, options: Options) -> TaskInfo:
    return replace(info, inputs=(options.size or 32) ** 2)


# GB10 split MNIST into 50,000 / 10,000 / 10,000. An autoencoder keeps more to train on; `holdout: 0` is S13's protocol.
ENTRIES: dict[str, Entry] = {
    "curves": Entry("curves", ("examples", "file", "seed", "holdout", "size"), 2_000, _curves),
    "mnist-ae": Entry("mnist", ("examples", "file", "holdout"), 5_000),
    "mnist": Entry("mnist", ("examples", "file", "holdout"), 10_000),
    "digits": Entry("digits", ("examples", "seed")),
    "faces": Entry("faces", ("examples", "file", "seed")),
    "cifar10": Entry("cifar10", ("examples", "file", "holdout"), 10_000),
    "small-imagenet": Entry("imagenet", ("examples", "file", "seed", "classes"), shaped=_classes),
    "shapeset": Entry("shapeset", ("examples", "seed", "holdout", "size"), shaped=_shapeset),
    "data": Entry("own", ("examples", "file", "seed", "holdout", "classes", "loss")),
    "add": Entry("adding", (*_DRAWN, "centre"), shaped=_sequence),
    "mul": Entry("adding", (*_DRAWN, "centre"), shaped=_sequence),
    "xor": Entry("adding", (*_DRAWN, "centre"), shaped=_sequence),
    "mem-5": Entry("memory", _DRAWN, shaped=_sequence),
    "mem-20": Entry("memory", _DRAWN, shaped=_sequence),
    "order": Entry("order", _DRAWN, shaped=_sequence),
    "order-3bit": Entry("order", _DRAWN, shaped=_sequence),
    "permutation": Entry("order", _DRAWN, shaped=_sequence),
}
"""Each task that has a name of its own."""

_PYTHON = Entry("own", ("options",))
"""A task of the user's own Python, named package.module:function."""

_WHOLE: dict[str, tuple[int, int | None]] = {
    "examples": (1, None), "seed": (0, None), "holdout": (0, None), "size": (8, 64), "length": (10, 1000),
    "classes": (2, None),
}  # fmt: skip
"""Options that are whole numbers: the smallest and the largest."""

_DEFAULTS = Options()


def entry(name: str) -> Entry:
    """Return a task's entry. Raises TaskError for a name that is none."""
    if ":" in name:
        return _PYTHON
    if name not in ENTRIES:
        raise TaskError(f"task {name!r}: one of {', '.join(ENTRIES)}, or package.module:function{_near(name, ENTRIES)}")
    return ENTRIES[name]


def resolve(name: str, options: Mapping[str, Any]) -> Options:
    """Check the options of a task; None stands for a default.

    Raises TaskError for an unknown task or option, one that this task does not take, and a wrong value.
    """
    known = entry(name).options
    for key, value in options.items():
        if key not in Options.__dataclass_fields__:
            raise TaskError(f"task {name}: option {key!r}: one of {', '.join(known)}{_near(key, known)}")
        if key not in known and not _default(key, value):
            raise TaskError(f"task {name}: option {key}={value}: this task takes {', '.join(known)}")
        if value is not None:
            _check(name, key, value)
    given = {key: value for key, value in options.items() if value is not None}
    if "file" in given:
        given["file"] = str(given["file"])
    checked = Options(**given)
    if name == "curves":
        _check_curves(checked)
    if (name in LENGTHS or name == "shapeset") and checked.holdout == 0:
        raise TaskError(f"task {name}: option holdout=0: must be 1 or more, its valid part is drawn")
    return checked


def info(name: str, options: Mapping[str, Any] | None = None) -> TaskInfo:
    """What is known of a task with these options before its data are read.

    Only for data of the user's own is more than this file needed: the headers of the file, or the function. Raises
    TaskError as `resolve` does, and for a file or a function that cannot be used.
    """
    return described(name, resolve(name, options or {}))


def described(name: str, chosen: Options) -> TaskInfo:
    """Return what `info` says, of options that are checked."""
    place = entry(name)
    if name not in TASKS:
        found = import_module("trainers.tasks.own").info(name, chosen)
        assert isinstance(found, TaskInfo)
        return found
    return place.shaped(TASKS[name], chosen) if place.shaped else TASKS[name]


def _default(key: str, value: Any) -> bool:
    """Whether a value says no more than silence: such options are ignored by tasks that know no such option."""
    return value is None or (value == getattr(_DEFAULTS, key) and not isinstance(value, bool))


def _check(name: str, key: str, value: Any) -> None:
    wrong = f"task {name}: option {key}={value!r}: must be"
    if key in _WHOLE:
        low, high = _WHOLE[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (high and value > high):
            raise TaskError(f"{wrong} a whole number, {low} {f'to {high}' if high else 'or more'}")
    elif key == "file":
        if not isinstance(value, str) and not hasattr(value, "__fspath__"):
            raise TaskError(f"{wrong} a path")
    elif key == "centre":
        if value not in CENTRES[name]:
            raise TaskError(f"{wrong} one of {', '.join(CENTRES[name])}")
    elif key == "loss":
        if value not in LOSSES:
            raise TaskError(f"{wrong} one of {', '.join(LOSSES)}")
    elif not isinstance(value, Mapping) or not all(isinstance(word, str) for word in value):
        raise TaskError(f"{wrong} a mapping of the function's arguments by name")


def _check_curves(options: Options) -> None:
    if options.file:
        for key, value in (("seed", options.seed), ("size", options.size)):
            if value:
                raise TaskError(f"task curves: option {key}={value}: nothing is drawn when a file is given")
    elif options.holdout is not None:
        raise TaskError(f"task curves: option holdout={options.holdout}: generated curves bring their own valid part")


def _near(word: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(allowed), 1)
    return f"; did you mean {near[0]}?" if near else ""
