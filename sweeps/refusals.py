"""What keeps two arms from being compared: other data, another metric, budget, measurement or version."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.arms import Runs, Study, examples

WORK = 0.02
"""Budgets are equal when they differ by less than this share: HF's ends with whole outer iterations."""
WALL = 0.1
"""Likewise of seconds, where they are what is matched."""


def differences(one: tuple[Study, Runs], other: tuple[Study, Runs], match: str = "work") -> list[str]:
    """What differs between two sweeps' arms that has to be alike, each with both values; empty: nothing.

    With `match` wall their work may differ, but not their seconds of training, nor the machine.
    """
    (a, runs_a), (b, runs_b) = one, other
    found = [*_data(a, b), *_measuring(a, b), *_version(a, b)]
    found += seconds(one, other) if match == "wall" else budgets(runs_a, runs_b)
    return found


def _data(a: Study, b: Study) -> Iterator[str]:
    """Task, its settings, and whether the data are the papers' own."""
    mine, theirs = ({"name": "", **_task(study), "trainer": study.spec.get("trainer")} for study in (a, b))
    for key in dict.fromkeys((*mine, *theirs)):
        if key != "file" and mine.get(key) != theirs.get(key):
            name = key if key == "trainer" else "task" if key == "name" else f"task.{key}"
            yield _unlike(name, mine.get(key), theirs.get(key))
    alike = [study.data.get("look_alike") for study in (a, b)]
    if alike[0] != alike[1]:
        yield _unlike("data", *("a look-alike" if each else "not known" if each is None else "original"
                                for each in alike))  # fmt: skip
    elif (sources := [study.data.get("source") for study in (a, b)])[0] != sources[1] and "file" in (mine | theirs):
        yield _unlike("data", *sources)


def _task(study: Study) -> Mapping[str, Any]:
    """The task's settings that are set."""
    task = study.spec.get("task") or {}
    task = {"name": task} if isinstance(task, str) else task
    return {key: value for key, value in task.items() if value not in (None, {})}


def _measuring(a: Study, b: Study) -> Iterator[str]:
    """The metric, what is good, and on how many examples it is taken."""
    if a.metric != b.metric:
        yield _unlike("metric", a.metric, b.metric)
    if a.mode != b.mode:
        yield _unlike("mode", a.mode, b.mode)
    losses = [(study.spec.get("model") or {}).get("loss") for study in (a, b)]
    if losses[0] != losses[1] and a.metric.endswith("_loss"):
        yield _unlike("model.loss", *losses)
    if examples(a) != examples(b):
        yield _unlike("examples measured on", examples(a), examples(b))
    elif (a.metric, a.mode) == (b.metric, b.mode) and not _close(a.stuck_above, b.stuck_above):
        yield _unlike("stuck above" if a.mode == "min" else "stuck below", a.stuck_above, b.stuck_above)


def _close(one: float | None, other: float | None) -> bool:
    """Whether two limits are one, but for the rounding of another machine."""
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-6))


def _version(a: Study, b: Study) -> Iterator[str]:
    """Releases that number differently may mean different things by the same names."""
    releases = [_release(study) for study in (a, b)]
    if releases[0] != releases[1]:
        yield _unlike("musweep", *releases)


def _release(study: Study) -> str:
    """The release series that made the results, `0.1` of 0.1.3."""
    versions = (study.spec.get("resolved") or {}).get("versions") or study.history.versions
    return ".".join(str(versions.get("musweep", "not known")).split(".")[:2])


def budgets(a: Runs, b: Runs) -> list[str]:
    """Whether two arms were given as much work, in gradients of one example; at most one line."""
    if abs(a.budget - b.budget) <= WORK * max(a.budget, b.budget):
        return []
    return [_unlike("budget", *(f"{runs.budget:,.0f} example gradients a trial" for runs in (a, b)))]


def seconds(one: tuple[Study, Runs], other: tuple[Study, Runs]) -> list[str]:
    """Whether two arms trained as long, on machines of one kind; at most one line."""
    machines = [(study.spec.get("resolved") or {}).get("versions", {}).get("cpu") for study, _ in (one, other)]
    if machines[0] != machines[1]:
        return [_unlike("machine", *machines)]
    spent = [runs.seconds for _, runs in (one, other)]
    if abs(spent[0] - spent[1]) <= WALL * max(spent):
        return []
    return [_unlike("budget", *(f"{each:.3g} s of training a trial" for each in spent))]


def _unlike(name: str, one: object, other: object) -> str:
    """`task.size: 14 against 28`."""
    return f"{name}: {_said(one)} against {_said(other)}"


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none given" if value is None or value == "" else str(value)
