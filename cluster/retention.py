"""What is kept of sweeps and what may go: `musweep rm`, `musweep gc`, `musweep keep`.

A rule says which sweeps go and what kept ones may lose. Spec, journal, tables and report of a kept sweep are never
touched. A folder is removed in two steps: it gets a hidden name at once, then it is emptied; a crash between the two
leaves something that the next `gc` finds.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.folders import UserError, is_sweep, sweeps_in
from sweeps import history, journal, lease, places, tracked
from sweeps.lease import Lease
from sweeps.schema_values import Section

FILE = "retention.yaml"
KEEP = "KEEP"
"""A file in a sweep's folder, by which no rule removes it."""
TRASH = ".musweep-trash-"
DAY_S = 86_400.0
TEMPORARY_S = 3600.0  # a temporary file of a process that may live on another host is left alone for so long
TEMPORARY = (".*.tmp", "*/.*.tmp", ".export-*")
OURS = {
    "spec.json", "journal.jsonl", "journal", "lease.json", "checkpoints", "models", "states", "start.npz", "rows",
    "diagnostics", "trials.parquet", "events.jsonl", "comparison.json", "report.html", "mlflow.json", "ray", "study.db",
    "export", "logs", "status.json", "remote.json", "code", "package.zip", KEEP,
}  # fmt: skip
"""What musweep itself puts in a sweep folder; hidden files aside."""


class Thin(Section):
    """What a finished sweep may lose."""

    after_days: float = 1.0
    """How long after its end."""
    checkpoints: bool = True
    """States from which running trials go on; a finished sweep has none."""
    ray: bool = True
    """Ray Tune's own files, never read back."""
    rows: bool = True
    """Many parts become one; no row is lost."""
    states: bool = False
    """States that `training.keep` asked for; without them nothing can be forked from there."""
    models: int | None = None
    """Of so many best trials of each stage the models stay; None: all stay."""


class Rules(Section):
    """Which sweeps go. One that any of these keeps stays; without `days` and `sweeps` all stay."""

    days: float | None = None
    """Sweeps that did something within so many days stay."""
    sweeps: int | None = None
    """The last so many sweeps of each name stay."""
    verdicts: bool = True
    """Sweeps with a verdict stay."""
    unfinished: bool = True
    """Sweeps that could still be resumed stay."""
    thin: Thin | None = Thin()
    """What kept sweeps may lose; null: nothing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule asks about a sweep folder."""

    folder: Path
    name: str
    state: str
    """`running`, `finished`, `unfinished`, or `damaged`."""
    touched: float
    """When it last did something, in seconds since 1970."""
    keep: bool
    verdict: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a rule would remove."""

    folder: Path
    what: str
    paths: tuple[Path, ...]
    size: int
    why: str
    whole: bool = False
    """Whether it is the sweep itself."""


@dataclass(slots=True)
class Plan:
    """What `gc` would do, and what stays and why."""

    steps: list[Step] = field(default_factory=list)
    kept: dict[Path, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that would be freed."""
        return sum(step.size for step in self.steps)


def load_rules(path: Path | None, root: Path) -> tuple[Rules, str]:
    """The rules and where they are from: the given file, `retention.yaml` in the root or here, the user's, none.

    Raises:
        UserError: the file is wrong.
    """
    from sweeps import reading

    own = Path.home() / ".config" / "musweep" / FILE
    found = path or next((each for each in (root / FILE, Path(FILE), own) if each.exists()), None)
    if found is None:
        return Rules(), "no retention.yaml: no sweep is removed"
    try:
        return Rules.model_validate(reading.parse(found.read_text(encoding="utf-8")) or {}), str(found)
    except FileNotFoundError:
        raise UserError(f"{found}: no such file of rules") from None
    except ValidationError as error:
        raise UserError(f"{found}: {_wrong(error)}") from None
    except ValueError as error:
        raise UserError(f"{found}: {error}") from None


def _wrong(error: ValidationError) -> str:
    """The first mistake in words, with the names that are allowed there."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    model: type[Section] = Thin if place[:1] == ["thin"] and len(place) > 1 else Rules
    words = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{'.'.join(place) or 'rules'}: {words}; allowed are {', '.join(model.model_fields)}"


def facts(folder: Path) -> Facts:
    """What a rule must know of a sweep folder; never raises for what is in it."""
    name, state, verdict, touched = folder.name, "damaged", (folder / "comparison.json").exists(), 0.0
    try:
        told = history.load(folder)
        state = "finished" if told.closed in ("finished", "budget") else "unfinished"
        touched = max((t.ended_at or t.asked_at for t in told.trials.values()), default=told.opened_at or 0.0)
        spec = _spec(folder)
        name = str(spec.get("name") or folder.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        state = "damaged"
    for path in (folder / "journal.jsonl", folder / "spec.json", folder):
        if path.exists():
            touched = max(touched, path.stat().st_mtime)
            break
    if lease.held(folder):
        state = "running"
    return Facts(folder, name, state, touched, (folder / KEEP).exists(), verdict)


def _spec(folder: Path) -> Mapping[str, Any]:
    import json

    data = json.loads((folder / "spec.json").read_bytes())
    return data if isinstance(data, Mapping) else {}


def stays(fact: Facts, rules: Rules, place: int, now: float) -> str:
    """Why a sweep stays, empty if it goes; `place` is its place among those of its name, 0 the newest. Pure."""
    if fact.state == "running":
        return "a driver runs it"
    if fact.keep:
        return "kept by `musweep keep`"
    if rules.days is None and rules.sweeps is None:
        return "no rule removes sweeps"
    if fact.state == "damaged":
        return "damaged: see `musweep doctor DIR`"
    if rules.verdicts and fact.verdict:
        return "has a verdict"
    if rules.unfinished and fact.state == "unfinished":
        return "unfinished: could be resumed"
    if rules.days is not None and now - fact.touched < rules.days * DAY_S:
        return f"younger than {rules.days:g} days"
    if rules.sweeps is not None and place < rules.sweeps:
        return f"among the last {rules.sweeps} of its name"
    return ""


def plan(root: Path, rules: Rules, now: float | None = None) -> Plan:
    """What the rules would remove from the sweeps directly under a folder; changes nothing."""
    now = time.time() if now is None else now
    made, places_taken = Plan(), dict[str, int]()
    for fact in sorted(map(facts, sweeps_in(root)), key=lambda fact: (-fact.touched, fact.folder.name)):
        place = places_taken.get(fact.name, 0)
        places_taken[fact.name] = place + 1
        why = stays(fact, rules, place, now)
        if not why and (others := foreign(fact.folder)):
            why = f"also holds {_few(others)}, which is not musweep's"
        if not why:
            made.steps.append(Step(fact.folder, "the sweep", (fact.folder,), size(fact.folder), "the rule", whole=True))
            continue
        made.kept[fact.folder] = why
        if fact.state == "running":
            continue
        made.steps += leftovers(fact.folder, now)
        if rules.thin is not None and fact.state == "finished" and now - fact.touched >= rules.thin.after_days * DAY_S:
            made.steps += thinned(fact.folder, rules.thin)
    for path in sorted(root.glob(f"{TRASH}*")) if root.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            made.steps.append(Step(path, "half removed", (path,), size(path), "a removal that was cut short"))
    return made


def thinned(folder: Path, thin: Thin) -> Iterator[Step]:
    """What a finished sweep may lose; of one on an object store only what is in its working folder alone."""
    stored = places.remote_of(folder) is not None
    for name, wanted, why in (
        ("checkpoints", thin.checkpoints, "it is finished"),
        ("ray", thin.ray, "never read back"),
        ("states", thin.states, "the rule"),
    ):
        path = folder / name
        if (
            wanted
            and not (stored and name != "ray")
            and path.is_dir()
            and not path.is_symlink()
            and (octets := size(path))
        ):
            yield Step(folder, name, (path,), octets, why)
    if stored:
        return
    if thin.models is not None and (worse := _worse_models(folder, thin.models)):
        yield Step(folder, "models", worse, sum(map(size, worse)), f"not among the best {thin.models}")
    parts = sorted((folder / "rows").glob("part-*.parquet"))
    if thin.rows and len(parts) > 1:
        yield Step(folder, "rows", tuple(parts), 0, f"{len(parts)} parts become one")


def leftovers(folder: Path, now: float) -> Iterator[Step]:
    """Temporary files whose writers are gone."""
    left = tuple(path for pattern in TEMPORARY for path in sorted(folder.glob(pattern)) if _abandoned(path, now))
    if left:
        yield Step(folder, "temporary files", left, sum(map(size, left)), "their writers are gone")


def _abandoned(path: Path, now: float) -> bool:
    try:
        age = now - path.lstat().st_mtime
    except OSError:
        return False
    return age > TEMPORARY_S


def _worse_models(folder: Path, keep: int) -> tuple[Path, ...]:
    """Models of trials that are not among the best of their stage."""
    maximise = _spec(folder).get("mode") == "max"
    by_stage: dict[str, list[history.Trial]] = {}
    for trial in history.load(folder).trials.values():
        if trial.state == "complete" and trial.objective is not None:
            by_stage.setdefault(trial.stage, []).append(trial)
    best = {
        trial.id
        for trials in by_stage.values()
        for trial in sorted(trials, key=lambda t: ((t.objective or 0.0) * (-1 if maximise else 1), t.number))[:keep]
    }
    return tuple(path for path in sorted((folder / "models").glob("t*.npz")) if path.stem not in best)


def carry_out(step: Step) -> None:
    """Do what a step says.

    Raises:
        LeaseHeld: a driver has come meanwhile.
        OSError: something could not be removed; the same again goes on.
    """
    if step.whole:
        remove(step.folder)
        return
    if step.folder.name.startswith(TRASH):
        _empty(step.folder)
        return
    with Lease(step.folder):
        if step.what == "rows":
            merge_rows(step.folder)
            return
        for path in step.paths:
            if path.is_dir() and not path.is_symlink():
                aside = path.with_name(f".{path.name}-{secrets.token_hex(3)}.tmp")
                path.rename(aside)  # all of it or nothing of it
                shutil.rmtree(aside)
            else:
                path.unlink(missing_ok=True)


def merge_rows(folder: Path) -> None:
    """Replace all parts of rows by one, made from the journal; a crash leaves rows twice, which readers see through."""
    from sweeps import store

    parts = sorted((folder / "rows").glob("part-*.parquet"))
    (folder / "rows").mkdir(exist_ok=True)
    number = max((int(path.stem.split("-")[1]) for path in parts if path.stem.split("-")[1].isdigit()), default=-1) + 1
    made = folder / f".export-{secrets.token_hex(3)}"
    try:
        store.export(folder, "parquet", made)
        (made / "rows.parquet").replace(folder / "rows" / f"part-{number:05d}.parquet")
    finally:
        shutil.rmtree(made, ignore_errors=True)
    for path in parts:
        path.unlink(missing_ok=True)


def foreign(folder: Path) -> list[str]:
    """What lies in a sweep folder that musweep did not put there."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if name not in OURS and name[0] != "." and ".damaged-" not in name]


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def refuse(folder: Path, force: bool = False) -> None:
    """Refuse to remove what is no sweep, what is a link, and what holds other things.

    Raises:
        UserError: it is one of these.
        LeaseHeld: a driver runs the sweep.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link to {folder.readlink()}: name that folder, or remove the link yourself")
    if not folder.is_dir() or not is_sweep(folder):
        raise UserError(f"{folder}: not a sweep folder, so it is not removed")
    others = foreign(folder)
    if others and not force:
        raise UserError(f"{folder} also holds {_few(others)}, which is not musweep's: move it away, or give --force")
    try:
        with (folder / "journal.jsonl").open("rb") as file:
            known = journal.scan(file.readline())[0]
    except OSError:
        known = []
    if not known and not force and not {"name", "task", "trainer"} & set(_spec_or_nothing(folder)):
        raise UserError(f"{folder}: neither journal nor spec is a sweep's; give --force to remove it all the same")


def _spec_or_nothing(folder: Path) -> Mapping[str, Any]:
    try:
        return _spec(folder)
    except (OSError, ValueError):
        return {}


def remove(folder: Path, force: bool = False) -> None:
    """Remove a sweep folder, and the files on its store if it has one.

    Raises:
        UserError: it is no sweep, or holds other things.
        LeaseHeld: a driver runs it.
        OSError: something could not be removed; the same again, or `gc`, goes on.
    """
    refuse(folder, force)
    with Lease(folder):
        _release_journal(folder)
        trash = folder.with_name(f"{TRASH}{folder.name}-{secrets.token_hex(3)}")
        folder.rename(trash)
    _empty(trash)


def delete_runs(folder: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Delete a sweep's runs from its MLflow and say how many there were; none where it was never in one.

    Raises:
        UserError: its journal does not say which runs are its own, or MLflow does not do it.
    """
    from cluster.reaper import identity_of
    from sweeps import mlflow_runs, tracking

    uri, identity = tracking.place_of(folder), identity_of(folder)
    if uri is None or (uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()):
        return 0
    if identity is None:
        raise UserError(f"{folder}: its journal does not say which MLflow runs are its own; leave out --mlflow")
    try:
        client = tracking.connect(uri)
        return mlflow_runs.delete(client, mlflow_runs.of_sweep(client, identity), progress)
    except Exception as error:  # MLflow raises whatever its server, database or network did
        said = str(error).splitlines()[0] if str(error) else ""
        wrong = tracked.redact(f"MLflow: {type(error).__name__}: {said}")
        raise UserError(f"{wrong}; nothing of {folder} was removed: try again, or leave out --mlflow") from error


def _release_journal(folder: Path) -> None:
    """See that no board writes on: one can outlive its killed driver by a moment.

    Raises:
        LeaseHeld: it does not end.
    """
    import fcntl

    path = folder / "journal.jsonl"
    if not path.exists():
        return
    until = time.monotonic() + 10
    with path.open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise lease.LeaseHeld(f"{folder}: its journal is still being written") from None
                time.sleep(0.1)
            except OSError:
                return  # a file system without locks


def _empty(trash: Path) -> None:
    """Remove what was renamed; links in it are removed, not followed."""
    if places.remote_of(trash) is not None:
        from sweeps import remote

        store = remote.of(trash)
        for name in store.names() if store is not None else ():
            if store is not None:
                store.remove(name)
    shutil.rmtree(trash)


def size(path: Path) -> int:
    """Bytes on the disk below a path; links count as themselves."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_blocks * 512
    octets = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                octets += size(Path(entry.path))
    except OSError:
        pass
    return octets
