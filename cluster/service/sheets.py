"""One sweep and one trial as plain data, made from what their journal says."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import logs, show
from cluster.folders import Folder
from cluster.service.looks import Look
from cluster.service.models import (
    Curve,
    Group,
    Links,
    Log,
    Measurement,
    Page,
    Point,
    Rung,
    Sheet,
    Stage,
    Summary,
    TrialRow,
    TrialSheet,
)
from sweeps import tracked
from sweeps.capture import Reader
from sweeps.cost import bill
from sweeps.history import Trial, trial_id

BEST = 10
_USER = re.compile(r"://[^/@]*@")
LONGEST = 2000
"""Characters of a log's line that are shown."""


def row(trial: Trial) -> TrialRow:
    """A trial in a line of the table."""
    return TrialRow(
        id=trial.id,
        number=trial.number,
        state=trial.state,  # type: ignore[arg-type]
        stage=trial.stage,
        point=trial.point_id,
        replicate=trial.replicate,
        group=trial.group,
        objective=trial.objective,
        updates=trial.updates,
        wall_s=trial.wall_s,
        work=trial.work,
        params=trial.params,
        engine=trial.engine,
        why=_why(trial),
        asked_at=trial.asked_at,
        ended_at=trial.ended_at,
    )


def _why(trial: Trial) -> str:
    """Why a trial ended, without looking at the others."""
    if trial.state == "stopped" and trial.stopped_at_rung is not None:
        return f"at the rung of update {trial.stopped_at_rung}"
    if trial.state == "diverged":
        return ": ".join(part for part in (f"after {trial.updates} updates", trial.reason) if part)
    return trial.reason


def leading(folder: Folder, n: int) -> list[Trial]:
    """The best trials of the search: complete ones, then those that were stopped, then those that train."""
    found = [*folder.ranked(), *folder.ranked(("stopped",))]
    if len(found) < n:
        found += [trial for trial in folder.history.tally.running.values() if trial.metrics and trial.stage == "search"]
    return found[:n]


def told(whole: Sheet, summary: Summary, look: Look) -> Sheet:
    """A sheet with what its driver told last."""
    status = look.status if look.held else {}
    return whole.model_copy(
        update={
            "summary": summary,
            "groups": [_group(each) for each in status.get("groups") or ()],
            "waiting": str(status.get("waiting") or ""),
            "compared": look.compared != (0, 0, 0),
        }
    )


def sheet(folder: Folder) -> Sheet:
    """All of a sweep that its page shows at first, but for what only its driver tells."""
    history = folder.history
    ended = {name: states.total() - states["running"] for name, states in history.tally.states.items()}
    first = next((trial for trial in history.trials.values() if trial.metrics), None)
    metrics = dict.fromkeys(name for values in (first.metrics.values() if first else ()) for name in values)
    cost = bill(folder.spec, history.held, sum(history.tally.seconds.values()))
    return Sheet(
        summary=Summary(id=folder.path.name, state="unreadable"),
        spec=folder.spec,
        names=folder.names,
        metrics=list(metrics),
        stages=[Stage(name=name, ended=ended.get(name, 0), size=size) for name, size in folder.stages.items()],
        rungs=rungs(folder),
        best=[row(trial) for trial in folder.ranked()[:BEST]],
        groups=[],
        versions={name: str(value) for name, value in history.versions.items()},
        note=history.note,
        updates=history.tally.updates.total(),
        seconds=cost.training,
        cost=f"{cost.held:,.0f} {cost.kind}-seconds",
        waiting="",
        compared=False,
        links=links(folder),
        folder=str(folder.path),
    )


def _group(said: Mapping[str, Any]) -> Group:
    trials = said.get("trials")
    return Group(
        group=said.get("group", 0),
        state=str(said.get("state") or ""),
        host=str(said.get("host") or ""),
        device=str(said.get("device") or ""),
        pid=said.get("pid"),
        restarts=int(said.get("restarts") or 0),
        running=len(trials) if isinstance(trials, list) else int(trials or 0),
        silent_s=said.get("since_report_s"),
    )


def rungs(folder: Folder) -> list[Rung]:
    """How many trials of the search reached, passed and left at each rung."""
    stopped = Counter(trial.stopped_at_rung for trial in folder.searched if trial.stopped_at_rung is not None)
    tally = folder.history.tally
    return [
        Rung(update=update, reached=tally.reached[update], passed=tally.passed[update], stopped=stopped[update])
        for update in sorted(stopped.keys() | tally.passed.keys())
    ]


def trial(folder: Folder, found: Trial) -> TrialSheet:
    """All of a trial."""
    names = dict.fromkeys(name for update in sorted(found.metrics) for name in found.metrics[update])
    order = [other.number for other in folder.ranked()]
    full = row(found).model_copy(update={"why": show.why(folder, found)})
    return TrialSheet(
        row=full,
        config=found.config,
        curves=[curve(found, name) for name in names],
        scores=dict(sorted(found.scores.items())),
        promoted=sorted(found.promoted),
        place=order.index(found.number) + 1 if found.number in order else None,
        doomed=found.doomed,
        traceback=found.traceback,
        links=links(folder, found),
    )


def curve(found: Trial, metric: str) -> Curve:
    """A metric of a trial by update."""
    updates = sorted(update for update, values in found.metrics.items() if metric in values)
    return Curve(
        trial=found.id,
        state=found.state,  # type: ignore[arg-type]
        stage=found.stage,
        params=found.params,
        objective=found.objective,
        metric=metric,
        updates=updates,
        values=[found.metrics[update][metric] for update in updates],
    )


def points(folder: Folder, x: str, y: str) -> list[Point]:
    """The trials of the search as dots on a map of two parameters."""
    return [
        Point(
            trial=each.id, state=each.state, x=each.params.get(x), y=each.params.get(y), objective=each.objective  # type: ignore[arg-type]
        )
        for each in folder.searched
        if x in each.params or y in each.params
    ]  # fmt: skip


def measured(trials: Sequence[Trial], offset: int, limit: int) -> Page[Measurement]:
    """A part of all numbers of some trials, by trial, update and metric."""
    sizes = [sum(map(len, each.metrics.values())) for each in trials]
    rows: list[Measurement] = []
    before = 0
    for each, size in zip(trials, sizes, strict=True):
        if before + size > offset and len(rows) < limit:
            numbers = [
                Measurement(trial=each.id, update=update, metric=name, value=values[name])
                for update, values in sorted(each.metrics.items())
                for name in sorted(values)
            ]
            rows += numbers[max(0, offset - before) :][: limit - len(rows)]
        before += size
    return Page[Measurement](rows=rows, total=before, matched=before, offset=offset, limit=limit)


def arrow(folder: Folder, numbers: Iterable[int]) -> Any:
    """All numbers of some trials as an Arrow table."""
    from sweeps.store import rows_of

    trials = folder.history.trials
    return rows_of({number: trials[number] for number in numbers if number in trials})


def links(folder: Folder, found: Trial | None = None) -> Links:
    """Where else a sweep, or a trial of it, can be looked at."""
    mlflow, command = _mlflow(folder, found)
    report = f"/sweeps/{folder.path.name}/report" if (folder.path / "report.html").exists() else ""
    return Links(mlflow=mlflow, mlflow_command=command, optuna=_optuna(folder), report=report)


def _mlflow(folder: Folder, found: Trial | None) -> tuple[str, str]:
    """The page of a run in MLflow, and what starts MLflow where it has no address."""
    from sweeps.tracking import place_of

    uri = place_of(folder.path)
    if uri is None:
        return "", ""
    if not uri.startswith(("http://", "https://")):
        return "", f"mlflow server --backend-store-uri {tracked.redact(uri)} --port 5000"
    uri = _USER.sub("://", uri).rstrip("/")
    try:
        known = json.loads((folder.path / "mlflow.json").read_bytes())
        run = known["parent"] if found is None else known["children"][found.id]
        return f"{uri}/#/experiments/{known['experiment_id']}/runs/{run}", ""
    except (OSError, ValueError, KeyError, TypeError):  # it has not come so far
        return uri, ""


def _optuna(folder: Folder) -> str:
    """What opens Optuna Dashboard on a sweep, where it is installed."""
    from importlib.util import find_spec

    if find_spec("optuna_dashboard") is None:
        return ""
    study = folder.path / "study.db"
    made = "" if study.exists() else f"musweep export {folder.path} --study file && "
    return f"{made}optuna-dashboard sqlite:///{study}"


def log(path: Path, number: int | None, lines: int) -> Log:
    """The end of a sweep's logs, or of what its groups printed while they held a trial."""
    kept: deque[str] = deque(maxlen=lines + 1)
    pattern, name = ("*.log", "") if number is None else ("group-*.log", trial_id(number))
    for each in sorted((path / "logs").glob(pattern)):
        for line in Reader(each).read():
            if not name or name in line.trials:
                kept.append(logs.clean(line.text if name else f"{each.stem} | {line.text}")[:LONGEST])
    found = list(kept)
    return Log(lines=found[-lines:] if lines else [], cut=len(found) > lines)
