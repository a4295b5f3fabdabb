"""Methods over several sweeps' tasks: on how many of them each is close to the best one there (Dolan, More 2002).

A method stands in each sweep by the confirmed arm that the search there had as its best; nothing is chosen by what
confirmed runs came to. Only whole tables count: every method shown was confirmed in every sweep shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sweeps import arms, stages
from sweeps.arms import Runs, Study
from sweeps.comparison import TaskProfile
from sweeps.labels import method_name
from sweeps.refusals import budgets

FACTORS = (1.0, 1.1, 1.5, 2.0, 5.0)
_ROUNDING = 1 + 1e-9
Errors = dict[str, dict[str, float | None]]


def profile_of(folders: Iterable[Path]) -> TaskProfile | None:
    """The performance profile of the methods that these sweeps have in common; None below two tasks or two methods.

    A sweep that is named twice, also as a copy, counts once. What no comparison can be made of is left out, with why.

    Raises:
        FileNotFoundError: a folder is no sweep.
    """
    every: Errors = {}
    left_out: list[str] = []
    for name, study in _studies(folders, left_out).items():
        row, why = _row(study)
        every[name] = row
        left_out += [f"{name}: {each}" for each in why]
    tasks, methods = _common(every)
    if len(tasks) < 2:
        return None
    from sweeps.compare_curves import profile

    errors = {task: {method: every[task][method] for method in methods} for task in tasks}
    steps = profile(errors)
    reached = [max(i for i, at in enumerate(steps.factor) if at <= factor * _ROUNDING) for factor in FACTORS]
    share = {method: tuple(steps.share[method][i] for i in reached) for method in methods}
    return TaskProfile(tasks, FACTORS, share, errors, (*left_out, *_missing(every, tasks, methods)))


def _studies(folders: Iterable[Path], left_out: list[str]) -> dict[str, Study]:
    """The sweeps by their folders' names, with a number behind where two are called the same."""
    found: dict[str, Study] = {}
    seen = set()
    for folder in folders:
        try:
            study = arms.read(folder)
        except ValueError as why:  # files that cannot be read
            left_out.append(f"{folder}: {why}")
            continue
        identity = (study.history.sweep_id, study.history.opened_at)
        if identity not in seen:
            seen.add(identity)
            plain = folder.resolve().name
            same = sum(known.folder.resolve().name == plain for known in found.values())
            found[f"{plain}-{same + 1}" if same else plain] = study
    return found


def _row(study: Study) -> tuple[dict[str, float | None], list[str]]:
    """The error of each method in a sweep, None where it failed; and what is left out, with why."""
    found: dict[str, float | None] = {}
    why: list[str] = []
    every = [runs for runs in arms.confirmed(study).values() if runs.trials]
    scale = arms.scale(study, every)
    first: Runs | None = None
    for method, runs in _by_method(study, every).items():
        if runs.unfinished or runs.due:
            why.append(f"{method_name(method)}: some runs have not ended yet")
            continue
        first = first or runs
        if unlike := [] if _in_time(study, runs) else budgets(first, runs):
            why.append(f"{method_name(method)}: {unlike[0]}")
            continue
        try:
            found[method] = _error(runs, scale)
        except ValueError as error:
            return {}, [f"{study.metric}: {error}"]
    return found, why


def _by_method(study: Study, every: Sequence[Runs]) -> dict[str, Runs]:
    """The arm of each method that the search had as its best."""
    found: dict[str, Runs] = {}
    for runs in every:  # those of one stage come best first
        method = arms.method(runs.trials[0])
        best = found.get(method)
        if method and (best is None or (runs.stage != best.stage and _rather(study, runs, best))):
            found[method] = runs
    return found


def _rather(study: Study, one: Runs, other: Runs) -> bool:
    """Whether the search of one stage saw a better value than that of another."""
    if one.searched is None or other.searched is None:
        return one.searched is not None
    return study.better(one.searched, other.searched)


def _in_time(study: Study, runs: Runs) -> bool:
    """Whether an arm is a baseline that was given as many seconds instead of as much work."""
    mine = [b for b in study.spec.get("baselines") or () if (b.get("name") or "hf") == stages.baseline_of(runs.stage)]
    return any(b.get("kind") == "hf" and b.get("match") == "wall" for b in mine)


def _error(runs: Runs, scale: arms.Scale) -> float | None:
    """Geometric mean of the finishers' errors; None, a failure, where no more than half of the runs finished.

    So is a median that ranks failures last.
    """
    if 2 * len(runs.finishers) <= len(runs.trials):
        return None
    return statistics.geometric_mean([error for error in scale.errors(runs.ends) if error is not None])


def _common(every: Mapping[str, Mapping[str, object]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The greatest whole table of tasks and methods, at least two of each; the one of more tasks among equals."""
    shared: set[frozenset[str]] = set()
    for row in every.values():
        shared |= {frozenset(row) & other for other in shared} | {frozenset(row)}
    best: tuple[tuple[str, ...], tuple[str, ...]] = (), ()
    for methods in sorted((each for each in shared if len(each) >= 2), key=sorted):
        tasks = tuple(task for task, row in every.items() if methods <= set(row))
        size = (len(tasks) * len(methods), len(tasks))
        if len(tasks) >= 2 and size > (len(best[0]) * len(best[1]), len(best[0])):
            best = tasks, tuple(method for method in every[tasks[0]] if method in methods)
    return best


def _missing(every: Errors, tasks: Sequence[str], methods: Sequence[str]) -> list[str]:
    """What was confirmed and is not in the table, as some of it is missing."""
    found = []
    for task, row in every.items():
        if task not in tasks:
            found.append(f"{task}: without {', '.join(method_name(each) for each in methods if each not in row)}")
    for other in dict.fromkeys(method for task in tasks for method in every[task] if method not in methods):
        found.append(f"{method_name(other)}: not on {', '.join(task for task in tasks if other not in every[task])}")
    return found
