"""Tasks of the user's own: data from a file (`data`), or a Python function (`package.module:function`).

A file gives arrays `inputs` and `targets`, or `inputs_train`, `targets_train` and so on for valid and test; see
`arrays.py` for tables. Whole numbers as targets are classes, other numbers are regressed, and without targets the
task is an autoencoder's. Data without parts are put in an order of the task's seed; a tenth is test, `holdout`
(a tenth) of the rest valid.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.config import LOSSES, TaskInfo
from trainers.tasks import Split, Task, files
from trainers.tasks.arrays import Arrays, headers
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, TaskError

VERSION = 2
PARTS = ("train", "valid", "test")
_FEWEST = 3
Named = Callable[[int], str]
Joined = tuple[NDArray[Any], NDArray[Any] | None, tuple[int, int, int], Named]
_infos: dict[tuple[object, ...], TaskInfo] = {}


def info(name: str, options: Options) -> TaskInfo:
    """Say what the task is from the headers of its file (targets are read to count classes), or from its function.

    A function is asked by its attribute `info`, called with the same arguments, where it has one; else it is called.
    Answers are kept while the file stays as it is. Raises TaskError for a file or a function that cannot be used.
    """
    stamp: tuple[object, ...] = ()
    if ":" not in name:
        file = _file(name, options)
        stamp = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else ()
    key = (name, repr(options), stamp)
    if key not in _infos:
        if ":" in name:
            _infos[key] = _asked(name, options)
        else:
            _infos[key] = _described(name, options, headers(name, _file(name, options)))
    return _infos[key]


def load(name: str, options: Options, cache: Path) -> Data | Task:
    """Read the file, or call the function. Raises TaskError when what they give cannot be used."""
    return _called(name, options) if ":" in name else _read(name, options, cache)


def _file(name: str, options: Options) -> Path:
    if options.file is None:
        raise TaskError(f"task {name}: option file is missing: name a .npz, .parquet or .arrow file")
    return Path(options.file).expanduser()


def _described(name: str, options: Options, arrays: Arrays) -> TaskInfo:
    where = f"task {name}: option file={options.file}"
    first = "inputs" if "inputs" in arrays.shapes else "inputs_train"
    if first not in arrays.shapes:
        raise TaskError(f"{where}: has no inputs or inputs_train; it has {', '.join(arrays.shapes) or 'nothing'}")
    inputs = _features(where, first, *arrays.shapes[first])
    targets = first.replace("inputs", "targets")
    if targets not in arrays.shapes:
        _one_of(where, options, ("squared", "logistic"), "no targets")
        return TaskInfo(name, "autoencoder", inputs, inputs, options.loss or "squared", ("loss", "squared_error"))
    shape, kind = arrays.shapes[targets]
    if kind in "biu" and options.loss in (None, "softmax"):
        if len(shape) > 2 or shape[1:] not in ((), (1,)):
            raise TaskError(f"{where}: {targets} is {shape}; expected one class, a whole number, for each example")
        classes = options.classes
        if classes is None:
            found = [arrays.read(key) for key in arrays.shapes if key.split("_")[0] == "targets"]
            classes = max(2, 1 + max(int(each.max(initial=0)) for each in found))
        return TaskInfo(name, "classification", inputs, classes, "softmax", ("loss", "error"))
    _one_of(where, options, ("squared", "logistic"), f"{targets} of {'whole ' if kind in 'biu' else ''}numbers")
    outputs = _features(where, targets, shape, kind)
    return TaskInfo(name, "regression", inputs, outputs, options.loss or "squared", ("loss", "squared_error"))


def _one_of(where: str, options: Options, losses: tuple[str, ...], what: str) -> None:
    if options.classes is not None:
        raise TaskError(f"{where}: option classes={options.classes}: {what} have none")
    if options.loss not in (None, *losses):
        raise TaskError(f"{where}: option loss={options.loss}: {what}, so one of {', '.join(losses)}")


def _features(where: str, name: str, shape: tuple[int, ...], kind: str) -> int:
    if kind not in "biuf" or not shape or 0 in shape:
        raise TaskError(f"{where}: {name} is {shape} of kind {kind}; expected numbers, a row for each example")
    return int(np.prod(shape[1:], dtype=int))


def _read(name: str, options: Options, cache: Path) -> Data:
    """Read the file once per host, checked."""
    file, what = _file(name, options), info(name, options)
    arrays = headers(name, file)
    where = f"task {name}: option file={options.file}"
    brought = [part for part in PARTS if f"inputs_{part}" in arrays.shapes]
    if options.seed and (brought or "part" in arrays.shapes):
        raise TaskError(f"task {name}: option seed={options.seed}: the file brings its own parts, nothing is drawn")

    def build() -> Data:
        inputs, targets, counts, named = _joined(where, arrays, brought, options.seed)
        inputs = _numbers(where, "inputs", inputs, what.kind == "autoencoder" and what.loss == "logistic", named)
        if targets is None:
            return Data(inputs, None, counts, f"file {file}", False)
        if what.kind == "regression":
            numbers = _numbers(where, "targets", targets, what.loss == "logistic", named)
            return Data(inputs, None, counts, f"file {file}", False, numbers)
        classes = targets.reshape(-1).astype(np.int64)
        _check_classes(where, classes, what.outputs)
        return Data(inputs, classes, counts, f"file {file}", False)

    key = f"{files.sha256(name, file)} {file.suffix} {what} seed={options.seed}"
    data = cached(cache, "data", VERSION, key, build)
    if options.holdout is not None and data.counts[1]:
        raise TaskError(f"task {name}: option holdout={options.holdout}: the file brings its own valid part")
    return data


def _joined(where: str, arrays: Arrays, brought: list[str], seed: int) -> Joined:
    """Put rows into the order train, valid, test: inputs, targets (None without), rows of each part, their names."""
    targets = None
    if brought:
        if missing := [part for part in ("train", "test") if part not in brought]:
            raise TaskError(
                f"{where}: has no inputs_{missing[0]}; expected inputs_train, inputs_test, perhaps inputs_valid"
            )
        some = [arrays.read(f"inputs_{part}") for part in brought]
        if len({each.shape[1:] for each in some}) > 1:
            raise TaskError(f"{where}: its parts have inputs of several shapes: {[each.shape for each in some]}")
        if "targets_train" in arrays.shapes:
            if missing := [part for part in brought if f"targets_{part}" not in arrays.shapes]:
                raise TaskError(f"{where}: has no targets_{missing[0]}")
            answers = [arrays.read(f"targets_{part}") for part in brought]
            if [len(each) for each in some] != [len(each) for each in answers]:
                raise TaskError(f"{where}: inputs and targets of a part differ in number")
            targets = np.concatenate([each.reshape(len(each), -1) for each in answers])
        train, valid, test = (len(some[brought.index(part)]) if part in brought else 0 for part in PARTS)
        inputs = np.concatenate(some)
        order = np.arange(len(inputs))
        if not valid:  # the last of train will be: a file sorted by class must not make them all of one
            order[:train] = np.random.default_rng([seed, 1]).permutation(train)
            inputs, targets = inputs[order], targets if targets is None else targets[order]
        return inputs, targets, (train, valid, test), _named(order, {"train": train, "valid": valid, "test": test})
    inputs = arrays.read("inputs")
    if "targets" in arrays.shapes:
        targets = arrays.read("targets")
        if len(targets) != len(inputs):
            raise TaskError(f"{where}: {len(inputs)} inputs with {len(targets)} targets")
    if len(inputs) < _FEWEST:
        raise TaskError(f"{where}: {len(inputs)} examples; {_FEWEST} or more make three parts")
    if "part" in arrays.shapes:
        words = arrays.read("part").tolist()
        if odd := set(words) - set(PARTS):
            raise TaskError(f"{where}: part {min(map(str, odd))!r}: one of {', '.join(PARTS)}")
        order = np.argsort([PARTS.index(word) for word in words], kind="stable")
        train, valid, test = (words.count(part) for part in PARTS)
        if not train or not test:
            raise TaskError(f"{where}: {train} rows of part train, {test} of test; both are needed")
    else:
        order = np.random.default_rng([seed, 0]).permutation(len(inputs))
        valid, test = 0, max(1, len(inputs) // 10)
        train = len(inputs) - test
    return inputs[order], targets if targets is None else targets[order], (train, valid, test), _named(order, {})


def _named(order: NDArray[np.int64], sizes: Mapping[str, int]) -> Named:
    """What the file calls a row after ordering: its number there, in its part where the file has arrays for parts."""

    def name(row: int) -> str:
        number = int(order[row])
        for part, size in sizes.items():
            if number < size:
                return f"{number} of {part}"
            number -= size
        return str(number)

    return name


def _numbers(where: str, name: str, array: NDArray[Any], unit: bool, named: Named = str) -> NDArray[np.float32]:
    """Make float32 rows; refuse what is not finite, or outside [0, 1] where the loss is logistic."""
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused
        table = array.reshape(len(array), -1).astype(np.float32)
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise TaskError(f"{where}: {name}: example {named(row)} has values that are not finite")
    if unit and not (table.min() >= 0 and table.max() <= 1):
        raise TaskError(f"{where}: {name} are {table.min():g} to {table.max():g}; loss logistic needs [0, 1]")
    return table


def _check_classes(where: str, classes: NDArray[np.int64], outputs: int, lowest: int = 0) -> None:
    if classes.min(initial=0) < lowest or classes.max(initial=0) >= outputs:
        found = f"{classes.min()} to {classes.max()}"
        raise TaskError(f"{where}: targets are {found}; expected classes 0 to {outputs - 1}")


def function(name: str, what: str = "task") -> Callable[..., Any]:
    """Import what `package.module:function` names. Raises TaskError when there is no such thing."""
    module, _, attribute = name.partition(":")
    try:
        found = import_module(module)
    except Exception as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name):
            hint = "; put it beside the spec, or its folder on PYTHONPATH"
        raise TaskError(f"{what} {name}: cannot import {module}: {_reason(error)}{hint}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    if not callable(found):
        raise TaskError(f"{what} {name}: module {module} has no function {attribute}")
    return found


def _reason(error: Exception) -> str:
    """One line for an exception of the user's code, with the line that raised it."""
    text = " ".join(str(error).split())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {text}{place}"


def _asked(name: str, options: Options) -> TaskInfo:
    cheap = getattr(function(name), "info", None)
    if cheap is None:
        return _called(name, options).info
    try:
        found = cheap(**options.options)
    except Exception as error:
        raise TaskError(f"task {name}: its info failed: {_reason(error)}") from error
    if not isinstance(found, TaskInfo):
        raise TaskError(f"task {name}: its info returned a {type(found).__name__}, expected a trainers.config.TaskInfo")
    return replace(found, name=name)


def _called(name: str, options: Options) -> Task:
    made = function(name)
    try:
        task = made(**options.options)
    except Exception as error:
        raise TaskError(f"task {name}: {_reason(error)}") from error
    if not isinstance(task, Task):
        raise TaskError(f"task {name}: returned a {type(task).__name__}, expected a trainers.tasks.Task")
    what = replace(task.info, name=name)
    if what.loss not in LOSSES:
        raise TaskError(f"task {name}: loss {what.loss!r}: one of {', '.join(LOSSES)}")
    train, valid, test = (_checked(f"task {name}: {part}", what, getattr(task, part)) for part in PARTS)
    return replace(task, info=what, train=train, valid=valid, test=test)


def _checked(where: str, what: TaskInfo, part: Split) -> Split:
    """Return a part with the types that nets expect, its shapes and values being what the info says."""
    inputs, targets = np.asarray(part.inputs), np.asarray(part.targets)
    shape = (len(inputs), what.steps, what.inputs) if what.steps else (len(inputs), what.inputs)
    if inputs.shape != shape or not len(inputs):
        raise TaskError(f"{where}: inputs are {inputs.shape}, expected {('N', *shape[1:])}".replace("'", ""))
    same = part.targets is part.inputs
    inputs = _numbers(where, "inputs", inputs, same and what.loss == "logistic").reshape(shape)
    if same:
        return replace(part, inputs=inputs, targets=inputs)
    rows = shape[:2] if what.every_step else shape[:1]
    expected = rows if what.loss == "softmax" else (*rows, what.outputs)
    if targets.shape != expected:
        raise TaskError(f"{where}: targets are {targets.shape}, expected {expected}")
    if what.loss != "softmax":
        numbers = _numbers(where, "targets", targets, what.loss == "logistic").reshape(expected)
        return replace(part, inputs=inputs, targets=numbers)
    if targets.dtype.kind not in "iu":
        raise TaskError(f"{where}: targets are {targets.dtype}, expected whole numbers, the classes")
    classes = targets.astype(np.int64)
    _check_classes(where, classes, what.outputs, lowest=-1 if what.every_step else 0)
    return replace(part, inputs=inputs, targets=classes)
