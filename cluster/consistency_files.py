"""The files of a sweep folder beside spec and journal: what is derived, and states of trials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster import retention, text
from cluster.consistency import Found, Sweep, set_aside
from cluster.doctor import BAD, OK, WARN, Finding

LATER = "made at the end, or by musweep sync"


def check_rows(sweep: Sweep) -> Iterator[Found]:
    """Whether the parts can be read and hold what the journal holds."""
    from sweeps import store

    if sweep.told is None:
        yield from _unknown("rows")
        return
    parts = sorted((sweep.path / "rows").glob("part-*.parquet"))
    damaged = [path for path in parts if not _reads(path)]

    def again() -> str:
        for path in damaged:
            path.unlink(missing_ok=True)
        retention.merge_rows(sweep.path)
        return "written anew from the journal, as one part"

    if damaged:
        says = f"{', '.join(path.name for path in damaged[:3])}: damaged"
        yield Found(Finding("rows", BAD, says, "--repair writes them anew from the journal"), again)
        return
    try:
        present = store.read_rows(sweep.path)
    except Exception as error:  # a flipped bit in a trial's name, say
        says = f"cannot be read together: {type(error).__name__}: {error}"
        yield Found(Finding("rows", BAD, says, "--repair writes them anew from the journal"), again)
        return
    count = f"{present.num_rows} in {text.plural(len(parts), 'part')}"
    if sweep.living or not sweep.over:
        yield Found(Finding("rows", OK, f"{count}; the next driver adds what the journal has more"))
    elif _same(present, store.rows_table(sweep.told)):
        yield Found(Finding("rows", OK, f"{count}, equal to the journal's"))
    else:
        yield Found(Finding("rows", BAD, f"{count}, not those of the journal", "--repair writes them anew"), again)


def _reads(path: Path) -> bool:
    from sweeps import store

    try:
        table = store.read_file(path)
    except Exception:  # pyarrow raises a dozen kinds for damaged files
        return False
    return bool(table.schema.names == store.ROWS_SCHEMA.names) and path.stem.split("-")[1].isdigit()


def _same(one: Any, other: Any) -> bool:
    """Whether two tables hold the same, NaN being equal to NaN."""
    import numpy as np

    if one.schema.names != other.schema.names or one.num_rows != other.num_rows:
        return False
    for name in one.schema.names:
        mine, theirs = one[name].combine_chunks(), other[name].combine_chunks()
        if mine.type != theirs.type:
            return False
        if str(mine.type) == "double":
            if not np.array_equal(mine.to_numpy(zero_copy_only=False), theirs.to_numpy(zero_copy_only=False), True):
                return False
        elif not mine.equals(theirs):
            return False
    return True


def check_tables(sweep: Sweep) -> Iterator[Found]:
    """Whether trials.parquet and events.jsonl say what the journal says."""
    from sweeps import events, journal, store

    if sweep.told is None:
        yield from _unknown("tables")
        return
    if not sweep.over or sweep.living:
        yield Found(Finding("tables", OK, LATER))
        return
    told = sweep.told

    def again() -> str:
        store.write_derived(sweep.path, told)
        return "trials.parquet and events.jsonl made anew"

    wrong = []
    try:
        if not _same(
            store.read_file(sweep.path / "trials.parquet"), store.trials_table(told, store._devices(sweep.path))
        ):
            wrong.append("trials.parquet is stale")
    except FileNotFoundError:
        wrong.append("trials.parquet is missing")
    except Exception:  # pyarrow raises a dozen kinds for damaged files
        wrong.append("trials.parquet is damaged")
    records = journal.read(sweep.path / "journal.jsonl")
    lines = _lines(sweep.path / events.FILE)
    if lines is None:
        wrong.append("events.jsonl is missing")
    elif [line for line in lines if b'"record":' in line] != list(events.Maker().lines(records)) or not _json(lines):
        wrong.append("events.jsonl is damaged or stale")
    if wrong:
        yield Found(Finding("tables", BAD, "; ".join(wrong), "--repair makes them anew, so does musweep sync"), again)
    else:
        yield Found(Finding("tables", OK, "trials.parquet and events.jsonl agree with the journal"))


def _lines(path: Path) -> list[bytes] | None:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None


def _json(lines: list[bytes]) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


def check_comparison(sweep: Sweep) -> Iterator[Found]:
    """Whether comparison.json is there if points were confirmed, and can be read."""
    from sweeps import compared

    path = sweep.path / compared.FILE
    if sweep.told is None or sweep.living:
        return

    def again() -> str:
        if path.exists():
            set_aside(path)
        return f"made anew: {made.name}" if (made := compared.write(sweep.path)) else "there is nothing to compare"

    repair = again if sweep.spec is not None else None
    if not path.exists():
        if sweep.over and sweep.told.confirming and sweep.spec is not None:
            yield Found(
                Finding("comparison", BAD, "missing, though points were confirmed", "--repair makes it"), repair
            )
        return
    lines = _lines(path)
    try:
        sound = isinstance(json.loads(b"".join(lines or [])), dict)
    except ValueError:
        sound = False
    if not sound:
        yield Found(Finding("comparison", BAD, "damaged", "--repair makes it anew, so does musweep compare"), repair)
    elif sweep.over and _older(path, sweep.path):
        yield Found(Finding("comparison", BAD, "older than the journal", "--repair makes it anew"), repair)
    else:
        yield Found(Finding("comparison", OK, "there"))


def check_report(sweep: Sweep) -> Iterator[Found]:
    """Whether the report is whole and newer than the journal."""
    path = sweep.path / "report.html"
    if not sweep.over or sweep.living:
        return

    def again() -> str:
        return f"written anew: {sweep.report(sweep.path).name}"

    repair = again if sweep.spec is not None else None
    wrong = ""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64))
            wrong = "" if file.read().rstrip().endswith(b"</html>") else "cut off"
    except FileNotFoundError:
        wrong = "missing"
    wrong = wrong or ("older than the journal" if _older(path, sweep.path) else "")
    if wrong:
        yield Found(Finding("report", BAD, wrong, "--repair writes it anew, so does musweep report"), repair)
    else:
        yield Found(Finding("report", OK, "there"))


def _older(path: Path, folder: Path) -> bool:
    """Whether a file was made before the journal's last word."""
    return path.stat().st_mtime < (folder / "journal.jsonl").stat().st_mtime - 1.0


def check_checkpoints(sweep: Sweep) -> Iterator[Found]:
    """Whether stored states can be read, and how much work a resume would repeat."""
    damaged, newest, ahead = [], dict[int, int](), set[int]()
    running = {n: t for n, t in sweep.told.trials.items() if t.state == "running"} if sweep.told else {}
    paths = sorted((sweep.path / "checkpoints").glob("group-*.npz"))
    for path in paths:
        updates = _updates(path)
        if updates is None:
            damaged.append(path)
            continue
        for number, update in updates.items():
            trial = running.get(number)
            if trial is not None and update > trial.updates:
                ahead.add(number)
            elif trial is not None:
                newest[number] = max(update, newest.get(number, 0))

    def clear() -> str:
        for path in damaged:
            path.unlink(missing_ok=True)
        return f"{text.plural(len(damaged), 'file')} removed; older ones are used"

    if damaged and not sweep.living:
        says = f"{', '.join(path.name for path in damaged[:3])}: damaged, and passed over by a resume"
        yield Found(Finding("checkpoints", BAD, says, "--repair removes them"), clear)
    if ahead:
        says = f"of {text.plural(len(ahead), 'trial')} ahead of the journal, which is older than it was"
        yield Found(
            Finding("checkpoints", WARN, says, "is journal.jsonl an old copy? a resume trains from where it ends")
        )
    again = sum(trial.updates - newest.get(number, 0) for number, trial in running.items())
    if running:
        total = sum(trial.updates for trial in running.values())
        says = f"{text.plural(len(paths), 'file')}; a resume repeats {again} of {total} updates of running trials"
        yield Found(Finding("checkpoints", OK, says))
    elif paths and not damaged:
        yield Found(Finding("checkpoints", OK, f"{text.plural(len(paths), 'file')}, all can be read"))


def _updates(path: Path) -> dict[int, int] | None:
    """The update of each state in a file; None if it is damaged."""
    from trainers.checkpoint import DamagedStateError, arrays

    try:
        found = arrays(path.read_bytes())
        return {number: int(named["update"]) for number, named in found.items()}
    except (DamagedStateError, OSError, KeyError, TypeError, ValueError):
        return None
    except Exception:  # zip files can be damaged in many ways
        return None


def check_models(sweep: Sweep) -> Iterator[Found]:
    """Whether the states that were kept for good can be read; they cannot be made again without training."""
    if sweep.told is None:
        return
    complete = [trial for trial in sweep.told.trials.values() if trial.state == "complete"]
    kept = [*sorted((sweep.path / "models").glob("t*.npz")), *sorted((sweep.path / "states").glob("t*.npz"))]
    damaged = [path for path in kept if not _is_state(path)]

    def aside() -> str:
        for path in damaged:
            set_aside(path)
        return f"{text.plural(len(damaged), 'file')} set aside as .damaged; musweep retrains no complete trial"

    if damaged and not sweep.living:
        says = f"{', '.join(path.name for path in damaged[:3])}: damaged, and lost unless there is a copy"
        yield Found(Finding("models", BAD, says, "restore from a copy, or --repair sets them aside"), aside)
    models = {path.stem for path in kept if path.parent.name == "models"}
    have = sum(trial.id in models for trial in complete)
    if complete:
        yield Found(Finding("models", OK, f"{have}, of {text.plural(len(complete), 'complete trial')}"))


def _is_state(path: Path) -> bool:
    """Whether a file holds the state of the one trial that it is named for."""
    number = path.stem[1:].partition("-")[0]
    return number.isdigit() and (_updates(path) or {}).keys() == {int(number)}


def check_start(sweep: Sweep) -> Iterator[Found]:
    """Whether the state that all trials start from is there, where the spec has one."""
    from sweeps import forks

    if sweep.spec is None or (start := sweep.spec.start) is None:
        return
    path = sweep.path / forks.START
    if path.exists() and _updates(path):
        return

    def restore() -> str:
        from sweeps.store import atomic_write

        atomic_write(path, forks.stored_state(Path(start.sweep), start))
        return f"copied again from {start.sweep}"

    says = f"{forks.START} is {'damaged' if path.exists() else 'missing'}"
    yield Found(Finding("start", BAD, says, f"--repair copies it from {start.sweep}, if that is there"), restore)


def _unknown(what: str) -> Iterator[Found]:
    yield Found(Finding(what, WARN, "not checked: the journal cannot be read"))
