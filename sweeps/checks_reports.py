"""What a spec asks for at a trial's reports: forks, kept states, a target, a state to start from."""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.errors import Problem, nearest
from sweeps.rungs import report_updates, snap
from sweeps.schema import Fields
from trainers.config import TaskInfo


def problems(spec: Fields, info: TaskInfo) -> Iterator[Problem]:
    """Updates that are no reports, metrics that are not reported, sections that cannot stand beside each other."""
    yield from _at_reports(spec)
    for i, phase in enumerate(spec.forks):
        if phase.at + phase.updates > spec.training.updates:
            wrong = f"a fork at {phase.at} would outlast the trial ({spec.training.updates} updates)"
            left = spec.training.updates - phase.at
            yield Problem(f"forks.{i}.updates", wrong, phase.updates, f"1 to {left}" if left > 0 else "an earlier fork")
    names = [phase.name for phase in spec.forks]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Problem(f"forks.{i}.name", "given twice", name, "each name once")
    if spec.target is not None:
        if spec.target.metric not in info.objectives:
            allowed, hint = ", ".join(info.objectives), nearest(spec.target.metric, info.objectives)
            yield Problem("target.metric", f"task {info.name} does not report it", spec.target.metric, allowed, hint)
        if spec.early_stopping is not None and spec.early_stopping.rungs is not None:
            wrong = "trials that reached the target would be missing from the rungs after it"
            yield Problem("target", wrong, allowed="early_stopping: null, or rungs: null in it")
    if spec.start is not None:
        yield from _start(spec)


def _at_reports(spec: Fields) -> Iterator[Problem]:
    """Updates at which there is no report, and so nothing that could be done."""
    reports = report_updates(spec.training.updates, spec.training.reports)
    places = [(f"forks.{i}.at", phase.at) for i, phase in enumerate(spec.forks)]
    places += [(f"training.keep.{i}", update) for i, update in enumerate(spec.training.keep)]
    for place, update in places:
        if update not in reports:
            step = reports[0]
            near = snap(update, reports)
            wrong = f"no report there: they come every {step} updates, the last at {reports[-1]}"
            yield Problem(place, wrong, update, "a report's update, or other training.reports", str(near))


def _start(spec: Fields) -> Iterator[Problem]:
    """Trials that start from a stored state have a past of their own."""
    assert spec.start is not None
    if spec.start.at >= spec.training.updates:
        wrong = f"the state has these updates behind it, trials end at {spec.training.updates}"
        yield Problem("start.at", wrong, spec.start.at, f"more training.updates than {spec.start.at}")
    if spec.early_stopping is not None:
        yield Problem("early_stopping", "trials that start from one state are few: all end", allowed="null")
    if spec.search.seeds != 1:
        yield Problem("search.seeds", "a stored state is of one replicate", spec.search.seeds, "1")
