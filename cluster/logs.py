"""`musweep logs` and `musweep events`: what workers printed and what happened, as it was or as it happens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import folders
from cluster.folders import UserError
from sweeps import events, journal, telemetry
from sweeps.capture import MARK, Reader
from sweeps.history import Trial, trial_id

POLL_S = 0.5


def clean(words: str) -> str:
    """A line without anything that a terminal would act on, but tabs."""
    return "".join(each if each.isprintable() or each == "\t" else "\ufffd" for each in words)


def sweep(folder: Path, follow: bool = False) -> Iterator[str]:
    """The lines of a sweep's driver and groups, each with whose it is; with `follow` until its driver leaves."""
    readers: dict[str, Reader] = {}
    while True:
        ended = telemetry.over(folder)
        for path in sorted((folder / "logs").glob("*.log")):
            readers.setdefault(path.stem, Reader(path))
        for name, reader in readers.items():
            for line in reader.read():
                yield f"{name} | {clean(line.text)}"
        if ended or not follow:
            return
        time.sleep(POLL_S)


def trial(folder: Path, number: int, follow: bool = False) -> Iterator[str]:
    """What a trial's group printed while it held the trial; with `follow` until the trial ends."""
    name, readers = trial_id(number), dict[Path, Reader]()
    found = shared = False
    while True:
        ended = telemetry.over(folder) or _ended(folder, number)
        for path in sorted((folder / "logs").glob("group-*.log")):
            readers.setdefault(path, Reader(path))
        for reader in readers.values():
            for line in reader.read():
                if name in line.trials:
                    if len(line.trials) > 1 and not (shared or line.ours):
                        shared = True
                        yield f"{MARK}lines of a group: what the {len(line.trials)} trials in it printed is mixed"
                    found = True
                    yield clean(line.text)
        if ended or not follow:
            break
        time.sleep(POLL_S)
    if not found:
        yield f"{MARK}no log holds {name}: {_why_none(folder)}"
    yield from _told(folder, number)


def _why_none(folder: Path) -> str:
    if not (folder / "logs").is_dir():
        return "this sweep kept none"
    return "it printed nothing, or its lines were cut: a group keeps its last 10 to 20 MB"


def _ended(folder: Path, number: int) -> bool:
    found = events.read(folder)
    return any(event["type"] == "end" and event.get("trial_id") == trial_id(number) for event in found)


def _told(folder: Path, number: int) -> Iterator[str]:
    """What the journal says of a trial's workers and of its own end."""
    records = journal.read(folder / "journal.jsonl")
    from sweeps import history

    known: Trial = history.fold(records).trials[number]
    until = known.ended_at or time.time()
    seen = {known.group}
    for record in records:
        if record["type"] == "ask" and record["trial"] == number:
            seen.add(record["group"])
        moved = record["type"] == "fault" and number in record.get("moved", ())
        mine = record["type"] == "fault" and record["group"] in seen
        if (moved or mine) and known.asked_at <= record["time"] <= until:
            seen.add(record["group"])
            yield f"{MARK}{_clock(record['time'])} fault of group {record['group']}: {record['cause']}: " + clean(
                " ".join(str(record["words"]).split())
            )
    if known.ended_at is not None:
        why = f": {clean(known.reason)}" if known.reason else ""
        yield f"{MARK}{_clock(known.ended_at)} {known.id} {known.state} after {known.updates} updates{why}"
    for line in known.traceback.rstrip().splitlines():
        yield clean(line)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def show(
    typed: Path, which: str | None, follow: bool, driver: Callable[[], Iterator[str]] | None = None
) -> Iterator[str]:
    """The log that a person means: of a trial, of a submitted sweep's driver, or of all of a folder's processes.

    Args:
        typed: a sweep's folder, name or id.
        which: the trial; None: all.
        follow: go on until the end.
        driver: gives the lines of the driver, if what was typed is the id of a sweep that was submitted.

    Raises:
        UserError: no such sweep or trial, or its folder is elsewhere.
    """
    if which is None and driver is not None:
        return driver()
    try:
        folder = folders.find(typed)
    except UserError as error:
        raise UserError(f"{error}; of one that was submitted elsewhere: --to TARGET") from None
    if which is None:
        return sweep(folder, follow)
    return trial(folder, _number(folder, which, follow), follow)


def _number(folder: Path, which: str, follow: bool) -> int:
    if follow and which != "best":  # it may be asked for yet
        return folders.trial_number(which)
    return folders.trial(folders.read(folder), which).number


def stream(folder: Path, follow: bool, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A sweep's events, of some types or all; with `follow` until its driver leaves."""
    if not follow and not (folder / events.FILE).exists():
        raise UserError(f"{folder}: no {events.FILE} yet; make it with: musweep sync {folder}")
    found = events.follow(folder, lambda: telemetry.over(folder)) if follow else iter(events.read(folder))
    return (event for event in found if not types or event["type"] in types)


def print_events(folder: Path, follow: bool, types: Sequence[str]) -> None:
    """Print events as they are in the file."""
    for event in stream(folder, follow, types):
        print(json.dumps(event, separators=(",", ":")), flush=follow)


def print_lines(lines: Iterator[str], follow: bool) -> bool:
    """Print lines as they come; whether there were any."""
    any_ = False
    for line in lines:
        any_ = True
        print(line, flush=follow)
    if not any_:
        print("nothing was printed yet", file=sys.stderr)
    return any_
