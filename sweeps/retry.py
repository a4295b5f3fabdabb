"""Failed trials run again: a record in the journal says so, and the next driver trains them as if they never ended."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from sweeps import history as histories
from sweeps.history import History, Trial
from sweeps.lease import Lease
from sweeps.segments import open_journal

LOST = "worker lost"
"""How the reason of a trial begins that failed with its group's worker, and not by code of the user's own."""


class NotFailedError(ValueError):
    """A trial was named that has not failed, or there is none."""


def failed(history: History, numbers: Collection[int] = (), lost: bool = False) -> list[Trial]:
    """The failed trials that are meant: of these numbers, or all; with `lost` only those that failed with a worker.

    Raises:
        NotFailedError: a number of no trial, or of one that has not failed.
    """
    for number in numbers:
        trial = history.trials.get(number)
        if trial is None:
            raise NotFailedError(f"no trial {number}; it has {len(history.trials)}, from number 0")
        if trial.state != "failed":
            raise NotFailedError(f"trial {trial.id} is {trial.state}: only failed trials can be retried")
    found = [trial for _, trial in sorted(history.trials.items()) if trial.state == "failed"]
    return [
        trial
        for trial in found
        if (not numbers or trial.number in numbers) and (not lost or trial.reason.startswith(LOST))
    ]


def retry(folder: Path, numbers: Collection[int] = (), lost: bool = False) -> list[int]:
    """Note that failed trials are to train again, each from its newest checkpoint or else its start; their numbers.

    What they had measured stays. They train when the sweep is resumed.

    Raises:
        LeaseHeld: a driver is running the sweep.
        NotFailedError: see `failed`; or nothing has failed.
    """
    with Lease(folder) as lease:
        journal = open_journal(folder, lease.epoch)
        try:
            found = [trial.number for trial in failed(histories.fold(journal.records), numbers, lost)]
            if not found:
                raise NotFailedError(f"no trial failed{' with its worker' if lost else ''}")
            now = time.time()
            journal.append(
                [
                    {"type": "retry", "time": now, "trials": found},
                    {"type": "close", "time": now, "reason": "interrupted"},
                ]
            )
        finally:
            journal.close()
    return found
