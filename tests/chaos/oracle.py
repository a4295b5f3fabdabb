"""The oracle of every fault: what must be true of a sweep that was disturbed, held against one that was not."""

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy

from sweeps import history, journal, tracked

RUNS = """
select r.run_uuid, r.status, (select t.value from tags t where t.run_uuid = r.run_uuid and t.key = :uid)
from runs r join tags s on s.run_uuid = r.run_uuid and s.key = 'musweep.sweep_id'
where s.value = :id and r.lifecycle_stage = 'active'
"""
PROBE = 2
ENDED = set(history.END_STATES)


def bits(value: float | None) -> bytes | None:
    """A float by its bits: NaN is NaN, and no digit is rounded away."""
    return None if value is None else struct.pack("<d", value)


def table(folder: Path) -> dict[int, Any]:
    """The final table, by trial: everything but times, groups and words."""
    return {
        t.number: (
            json.dumps(t.params, sort_keys=True), t.stage, t.replicate, t.state, t.stopped_at_rung, t.updates,
            bits(t.objective), {u: {k: bits(v) for k, v in m.items()} for u, m in t.metrics.items()},
        )
        for t in history.load(folder).trials.values()
    }  # fmt: skip


def complaints(folder: Path, trials: int, undisturbed: dict[int, Any] | None, mlflow: str | None) -> list[str]:
    """What is wrong with a finished sweep, in words; empty if nothing is."""
    records = journal.read(folder / "journal.jsonl")
    told = history.fold(records)
    found = []
    if told.closed != "finished":
        found.append(f"the journal ends with {told.closed or 'no close'}")
    asks = Counter(record["trial"] for record in journal.of_type(records, "ask"))
    ends = Counter(record["trial"] for record in journal.of_type(records, "end"))
    if sorted(asks) != list(range(trials)):
        found.append(f"{len(asks)} trials of {trials} were asked for")
    if twice := [number for number, times in (asks + Counter()).items() if times > 1]:
        found.append(f"asked for twice: {twice}")
    if wrong := [number for number in asks if ends[number] != 1]:
        found.append(f"not in exactly one end state: {wrong}")
    if running := [trial.number for trial in told.trials.values() if trial.state not in ENDED]:
        found.append(f"still running: {running}")
    if undisturbed is not None and (differing := differences(table(folder), undisturbed)):
        found.append(differing)
    if mlflow is not None:
        found += mlflow_complaints(mlflow, told, folder)
    return found


def differences(mine: dict[int, Any], other: dict[int, Any]) -> str:
    """Which trials differ, and in what; empty if none does."""
    names = ("params", "stage", "replicate", "state", "rung", "updates", "objective", "metrics")
    wrong = [
        f"t{number:05d} in {', '.join(n for n, a, b in zip(names, mine[number], other[number], strict=True) if a != b)}"
        for number in mine.keys() & other.keys()
        if mine[number] != other[number]
    ]
    missing = sorted(mine.keys() ^ other.keys())
    words = [f"{len(wrong)} trials differ: {'; '.join(wrong[:3])}"] if wrong else []
    return "; ".join([*words, *([f"trials only on one side: {missing[:5]}"] if missing else [])])


def mlflow_complaints(database: str, told: history.History, folder: Path) -> list[str]:
    """Whether MLflow's database holds one run per trial, none RUNNING, with every row of the journal once."""
    spec = json.loads((folder / "spec.json").read_bytes())
    engine = sqlalchemy.create_engine(database)
    try:
        with engine.connect() as connection:
            runs = connection.execute(sqlalchemy.text(RUNS), {"uid": tracked.TRIAL_UID, "id": told.sweep_id}).fetchall()
            points = connection.execute(
                sqlalchemy.text("select run_uuid, key, step, value, is_nan from metrics")
            ).fetchall()
    finally:
        engine.dispose()
    found = []
    children = {uid: (run, status) for run, status, uid in runs if uid is not None}
    if len(runs) != len(told.trials) + 1 or len(children) != len(told.trials):
        found.append(f"MLflow has {len(runs)} runs, {len(children)} children of {len(told.trials)} trials")
    if running := sum(status == "RUNNING" for _, status, _ in runs):
        found.append(f"{running} MLflow runs are RUNNING")
    held: dict[str, Counter[tuple[str, int]]] = {run: Counter() for run, _, _ in runs}
    values: dict[tuple[str, str, int], float] = {}
    for run, key, step, value, is_nan in points:
        if run in held:
            held[run][key, step] += 1
            values[run, key, step] = float("nan") if is_nan else value
    for trial in told.trials.values():
        run, _ = children.get(tracked.trial_uid(told.sweep_id, trial), ("", ""))
        if not run:
            continue
        want = {(key, update): value for update, row in trial.metrics.items() for key, value in row.items()}
        extra = {(key, trial.updates) for key in tracked.final_metrics(trial, spec)}
        got = held[run]
        if set(want) - set(got) or set(got) - set(want) - extra or any(got[point] != 1 for point in want):
            found.append(f"MLflow has other points of {trial.id}: {sum(got.values())}, the journal {len(want)}")
        elif any(bits(values[run, *point]) != bits(value) for point, value in want.items() if abs(value) < 1e308):
            found.append(f"MLflow has other values of {trial.id}")
    return found


def losses(inside: Path, folder: Path, rungs: bool = True) -> tuple[int, int, list[str]]:
    """What was trained again: most updates that one trial lost at once, all in all, and losses beyond the promise.

    The promise: a trial goes on from the newest checkpoint that its group had on disk; and, if `rungs`, there was one
    of the last rung that it had passed, unless it was hit within a second of passing it.
    """
    at: dict[int, int] = {}
    when: dict[int, float] = {}
    by: dict[int, int] = {}
    passed: dict[int, dict[int, float]] = {}
    kept: dict[int, int] = {}
    trials = history.load(folder).trials
    most = total = 0
    beyond = []
    for time_s, pid, steps in _noted(inside):
        if steps is None:
            kept |= {number: at[number] for number, holder in by.items() if holder == pid}
            continue
        for number, (low, high) in steps.items():
            if low < at.get(number, 0):
                lost = at[number] - low
                most, total = max(most, lost), total + lost
                before = [r for r, t in passed.get(number, {}).items() if t < when[number] - 1.0 and r > low]
                if rungs and before:
                    beyond.append(f"t{number:05d} went back to {low} though it had passed rung {max(before)}")
                elif low < kept.get(number, 0):
                    beyond.append(f"t{number:05d} went back to {low} though a checkpoint had it at {kept[number]}")
            if number in trials and low in trials[number].promoted:
                passed.setdefault(number, {}).setdefault(low, time_s)
            at[number], when[number], by[number] = high, time_s, pid
    return most, total, beyond


def _noted(inside: Path) -> list[tuple[float, int, dict[int, tuple[int, int]] | None]]:
    """In order of time: which process began to train which trials from where to where, or (None) kept a checkpoint."""
    found: list[tuple[float, int, dict[int, tuple[int, int]] | None]] = []
    for name in ("trained.jsonl", "kept.jsonl"):
        lines = (inside / name).read_text().splitlines() if (inside / name).exists() else []
        for time_s, pid, steps in map(json.loads, lines):
            # a step of a few updates is a worker's that measures what its group takes of memory
            real = {int(n): (low, high) for n, (low, high) in steps.items() if high - low > PROBE} if steps else None
            found.append((time_s, pid, real))
    return sorted(found, key=lambda noted: noted[0])
