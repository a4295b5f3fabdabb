"""What a spec says of its nights: what could not be judged, and what would give false alarms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.errors import Problem
from sweeps.schema import Fields
from sweeps.schema_baselines import HFBaseline

_TRIAL = re.compile(r"t\d{5,}")


def problems(spec: Fields) -> Iterator[Problem]:
    """Nights without anything to judge."""
    rules = spec.night
    if rules is None:
        return
    expect = rules.expect
    if expect is not None and expect.best is not None and expect.best[0] > expect.best[1]:
        yield Problem("night.expect.best", "the lower bound is above the upper one", expect.best, "[low, high]")
    for name in expect.trials if expect is not None else ():
        if rules.kind == "fresh":
            wrong = "trials of fresh nights have other seeds every night"
            yield Problem(f"night.expect.trials.{name}", wrong, allowed="best: [low, high]")
        elif not _TRIAL.fullmatch(name):
            yield Problem(f"night.expect.trials.{name}", "no trial's name", name, "names such as t00003")
    if rules.kind == "fresh":
        if spec.confirm is None:
            wrong = "fresh nights compare confirmed trials, and none are confirmed"
            yield Problem("confirm", wrong, allowed="a section such as {top: 1, seeds: 10}")
        if spec.search.algorithm != "grid":
            wrong = "fresh nights need the same points every night"
            yield Problem("search.algorithm", wrong, spec.search.algorithm, "grid")


def warnings(spec: Fields) -> Iterator[str]:
    """Nights that may differ though nothing has changed."""
    rules = spec.night
    if rules is None:
        return
    if rules.kind == "fixed":
        if spec.resources.engine != "loop" and spec.trainer is None:
            yield "night.kind fixed: only resources.engine: loop gives the same bits in any group"
        if spec.early_stopping is not None and spec.early_stopping.order == "arrival":
            yield "night.kind fixed: early_stopping.order: arrival decides by timing; number does not"
        if spec.budget.wall is not None or spec.budget.gpu_hours is not None:
            yield "night.kind fixed: a budget of time ends the search at another trial every night"
        if spec.search.algorithm == "tpe":
            yield "night.kind fixed: tpe repeats only with the same resources.workers and search.group_size"
        return
    for baseline in spec.baselines:
        if isinstance(baseline, HFBaseline) and not _one_point(baseline.space):
            yield (
                f"night.kind fresh: the search of {baseline.name} may find another point every night, and only equal "
                "points are pooled; give each parameter of its space one value"
            )


def _one_point(space: Mapping[str, Any]) -> bool:
    """Whether a baseline's search has one point only; an empty space stands for the default one."""
    return bool(space) and all(not isinstance(each, dict) and (not isinstance(each, list) or len(each) == 1)
                               for each in space.values())  # fmt: skip
