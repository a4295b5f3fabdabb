"""The reaper: ends what a dead driver left RUNNING in MLflow and in the exported Optuna studies.

A sweep whose folder is here is judged by its lease, which no dead process keeps; what its journal says is what MLflow
is told. Of a sweep whose folder is gone there is only the sign of life that its mirror renews: it must have passed by
the writer's clock, and it must not have changed for as long again by our own. Two wall clocks are never enough.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.folders import sweeps_in
from sweeps import journal, lease, study_view, tracked, tracking
from sweeps.history import History
from sweeps.mlflow_copy import LEASE_S

if TYPE_CHECKING:
    from sweeps.mlflow_runs import Identity

SILENCE_S = LEASE_S + 30.0
"""How long a sign of life must not have changed, by our own clock; mirrors renew it each LEASE_S / 3."""

RUNNING, CLOSED, SILENT, FAILED = "running", "closed", "silent", "failed"


@dataclass(frozen=True, slots=True)
class Reaped:
    """One sweep, or one place, and what was done there."""

    place: str
    what: str
    state: str
    """`closed`; `running`: its driver lives; `silent`: perhaps dead, watched; `failed`: the place did not answer."""
    says: str = ""


@dataclass(slots=True)
class Watch:
    """Remembers signs of life: what has not changed for long enough by our own clock is silent."""

    silence_s: float = SILENCE_S
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Hashable, tuple[Any, float]] = field(default_factory=dict)

    def silent(self, who: Hashable, sign: Any) -> bool:
        """Whether this sign of life is the same as it was all the while; a first look never says so."""
        seen = self._seen.get(who)
        if seen is None or seen[0] != sign:
            self._seen[who] = sign, self.clock()
            return False
        return self.clock() - seen[1] >= self.silence_s


WATCH = Watch()
"""What this process has seen: a dispatcher that looks now and then needs no memory of its own."""


def reap(root: Path, uri: str | None = None, watch: Watch | None = None) -> list[Reaped]:
    """End what dead drivers of sweeps under `root` left RUNNING; what is silent is ended by a later call.

    Args:
        root: a folder of sweeps.
        uri: one more MLflow to look at; that of each sweep, and `root`'s own, are looked at anyway.
        watch: what is known of silent sweeps; default what this process has seen.
    """
    watch = watch or WATCH
    sweeps = {path: identity_of(path) for path in sweeps_in(root)}
    return [*_mlflow(root, sweeps, uri, watch), *_studies(sweeps, watch)]


def _mlflow(root: Path, sweeps: dict[Path, Identity | None], uri: str | None, watch: Watch) -> list[Reaped]:
    places: dict[str, dict[Identity, Path]] = {tracking.tracking_uri(root / "sweep", uri): {}}
    if uri is not None:
        places.setdefault(tracking.tracking_uri(root / "sweep"), {})
    for path, identity in sweeps.items():
        if (place := tracking.place_of(path)) is not None and identity is not None:
            places.setdefault(place, {})[identity] = path
    known = {identity: path for path, identity in sweeps.items() if identity is not None}
    found = []
    for place in places:
        try:
            found += _at(place, {**known, **places[place]}, watch)
        except Exception as error:  # MLflow raises whatever its server, database or network did
            found.append(Reaped(tracked.redact(place), "", FAILED, _first_line(error)))
    return found


def _at(uri: str, known: dict[Identity, Path], watch: Watch) -> list[Reaped]:
    """Look at one MLflow."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return []
    from sweeps import mlflow_runs

    client, found, shown = tracking.connect(uri), [], tracked.redact(uri)
    for identity, runs in mlflow_runs.running(client).items():
        name, folder = identity.sweep_id, known.get(identity)
        if folder is None:
            found.append(_orphan(client, shown, name, runs, watch))
        elif not dead(folder, watch):
            found.append(Reaped(shown, name, RUNNING if lease.held(folder) else SILENT, str(folder)))
        else:
            try:
                words = tracking.close(folder, uri, identity)
            except tracking.MirrorBusy:
                found.append(Reaped(shown, name, RUNNING, str(folder)))
            else:
                found.append(Reaped(shown, name, CLOSED, f"{_runs(runs)} RUNNING; {words or 'as its journal says'}"))
    return found


def _orphan(client: Any, place: str, name: str, runs: list[Any], watch: Watch) -> Reaped:
    """A sweep without a folder here: ended once its sign of life has both passed and stood still."""
    from sweeps import mlflow_runs

    signs = sorted(run.data.tags["musweep.lease_until"] for run in runs if "musweep.lease_until" in run.data.tags)
    until = float(signs[-1]) if signs else 0.0
    still = watch.silent((place, name), (signs, len(runs)))
    if not still or time.time() < until + LEASE_S:
        since = f", last heard of {_ago(time.time() - until + LEASE_S)} ago by its own clock" if until else ""
        return Reaped(place, name, SILENT, f"no folder of it is here{since}; watched for {watch.silence_s:.0f} s")
    mlflow_runs.end(client, runs)
    return Reaped(place, name, CLOSED, f"{_runs(runs)} RUNNING, ended as KILLED; no folder of it is here")


def _studies(sweeps: dict[Path, Identity | None], watch: Watch) -> list[Reaped]:
    """Look at the studies in the folders and at the database of running sweeps."""
    known = {identity.sweep_id: path for path, identity in sweeps.items() if identity is not None}
    places = {study_view.default_url(path) for path in sweeps if (path / study_view.FILE).exists()}
    shared = os.environ.get(study_view.DATABASE)
    found = []
    for url in sorted(places | ({shared} if shared else set())):
        place = tracked.redact(url)
        try:
            for name, sign in study_view.running(url).items():
                found.append(_study(url, place, name, sign, known.get(name), watch))
        except Exception as error:  # whatever the database does
            found.append(Reaped(place, "", FAILED, _first_line(error)))
    return found


def _study(url: str, place: str, name: str, sign: str, folder: Path | None, watch: Watch) -> Reaped:
    if folder is not None:
        if not dead(folder, watch):
            return Reaped(place, name, RUNNING if lease.held(folder) else SILENT, str(folder))
        _, changed = study_view.export(folder, url)
        return Reaped(place, name, CLOSED, f"study: {changed} trials as its journal says")
    if not watch.silent((place, name), sign):
        return Reaped(place, name, SILENT, f"study: no folder of it is here; watched for {watch.silence_s:.0f} s")
    return Reaped(place, name, CLOSED, f"study: {study_view.set_waiting(url, name)} trials were RUNNING")


def dead(folder: Path, watch: Watch) -> bool:
    """Whether no driver holds a sweep folder, so far as can be known.

    On this host the lock on the lease says so. Locks of other hosts may not be seen here, so a holder there that did
    not say goodbye must have been silent for as long as we watch.
    """
    from sweeps.lease_file import Place

    if lease.held(folder):
        return False
    said = lease.read(folder)
    if said.get("released") or "beat" not in said or Place().same(said):
        return True
    return watch.silent(("lease", folder.resolve()), (said.get("epoch"), said.get("beat")))


def identity_of(folder: Path) -> Identity | None:
    """A sweep's identity by the first record of its journal; None if it has none, or an unreadable one."""
    from sweeps.mlflow_runs import Identity

    told = History()
    try:
        with (folder / "journal.jsonl").open("rb") as file:
            for record in journal.scan(file.readline())[0]:
                told.apply(record)
    except (OSError, journal.JournalError, KeyError):
        return None
    return Identity.of(told) if told.sweep_id else None


def _first_line(error: BaseException) -> str:
    said = str(error).splitlines()
    return tracked.redact(f"{type(error).__name__}: {said[0] if said else ''}")


def _runs(runs: Iterable[Any]) -> str:
    count = len(list(runs))
    return "1 run" if count == 1 else f"{count} runs"


def _ago(seconds: float) -> str:
    from cluster.text import span

    return span(max(0.0, seconds))
