"""All runs that sweeps have in an MLflow, found by their tags: those still RUNNING, those of one sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sweeps import tracked
from sweeps.history import History

PAGE = 100  # runs asked for at once: a server that is busy takes seconds for so many with 40 metrics each
EXPERIMENTS = 100  # experiments asked about at once: their ids are part of the request

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """A sweep among all sweeps, as the tags of its runs have it."""

    sweep_id: str
    opened_at: str

    @classmethod
    def of(cls, history: History) -> Identity:
        """That of a history."""
        tags = tracked.identity(history)
        return cls(tags[tracked.SWEEP_ID], tags[tracked.OPENED_AT])


def running(client: Any) -> dict[Identity, list[Any]]:
    """Every RUNNING run that musweep made, by its sweep.

    Raises:
        Exception: whatever MLflow raises.
    """
    found: dict[Identity, list[Any]] = {}
    for run in _search(client, "attributes.status = 'RUNNING'"):
        tags = run.data.tags
        if tracked.SWEEP_ID in tags:
            found.setdefault(Identity(tags[tracked.SWEEP_ID], tags.get(tracked.OPENED_AT, "")), []).append(run)
    return found


def of_sweep(client: Any, identity: Identity) -> list[Any]:
    """All runs of a sweep, its parent last, so that who deletes them in this order can be killed and begin again.

    Raises:
        Exception: whatever MLflow raises.
    """
    wanted = ((tracked.SWEEP_ID, identity.sweep_id), (tracked.OPENED_AT, identity.opened_at))
    runs = _search(client, " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted))
    return sorted(runs, key=lambda run: tracked.TRIAL_UID not in run.data.tags)


def _search(client: Any, filters: str) -> list[Any]:
    experiments, found = _pages(client.search_experiments, max_results=1000), list[Any]()
    for first in range(0, len(experiments), EXPERIMENTS):
        ids = [experiment.experiment_id for experiment in experiments[first : first + EXPERIMENTS]]
        found += _pages(client.search_runs, ids, filters, max_results=PAGE)
    return found


def _pages(ask: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    found, token = list[Any](), None
    while True:
        page = ask(*arguments, **options, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def end(client: Any, runs: Iterable[Any]) -> int:
    """End runs as KILLED, children first, and say how many there were.

    Raises:
        Exception: whatever MLflow raises.
    """
    ordered = sorted(runs, key=lambda run: tracked.TRIAL_UID not in run.data.tags)
    for run in ordered:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(ordered)


def delete(client: Any, runs: list[Any], progress: Progress | None = None) -> int:
    """Delete runs, which MLflow then hides; `mlflow gc` frees their space. Returns how many there were.

    Raises:
        Exception: whatever MLflow raises; the same call again goes on.
    """
    for done, run in enumerate(runs, 1):
        client.delete_run(run.info.run_id)
        if progress is not None and (done % PAGE == 0 or done == len(runs)):
            progress(done, len(runs))
    return len(runs)
