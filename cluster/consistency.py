"""`musweep doctor DIR`: whether a sweep folder is consistent, and what of it can be repaired.

Every check becomes a finding, never an exception, and may carry its repair. Nothing is repaired while a driver holds
the sweep; what is derived is made again from the journal; what cannot be made again is set aside, never deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster import consistency_events as elsewhere
from cluster import consistency_journal as records
from cluster import retention, text
from cluster.doctor import BAD, GIB, OK, WARN, Finding, disk
from cluster.folders import UserError
from sweeps import events, history, journal, lease, places, stages
from sweeps.history import History
from sweeps.lease import Lease
from sweeps.spec import SweepSpec
from sweeps.store import atomic_write

ROUNDS = 4  # a repair can bring to light what could not be checked before
Report = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and what repairs it: does so and says what it did."""

    finding: Finding
    repair: Callable[[], str] | None = None
    loses: bool = False
    """Whether the repair gives something up, so that it must be asked for by name."""


@dataclass(slots=True)
class Sweep:
    """A folder that is looked at, and what has been read of it so far."""

    path: Path
    report: Report
    living: bool = False
    """Whether a driver, other than us, holds it."""
    spec: SweepSpec | None = None
    plain: dict[str, Any] = field(default_factory=dict)
    told: History | None = None

    @property
    def over(self) -> bool:
        """Whether its last driver left in an orderly way, so that what is derived should be there."""
        return self.told is not None and self.told.closed is not None


Check = Callable[[Sweep], Iterator[Found]]


def examine(path: Path, report: Report, *, holding: bool = False) -> list[Found]:
    """Look at all of a sweep folder; changes nothing. `holding`: this process has the lease."""
    from cluster import consistency_files as files
    from cluster import consistency_mlflow as mlflow

    sweep = Sweep(path, report, living=not holding and lease.held(path))
    checks: list[tuple[str, Check]] = [
        ("spec", check_spec), ("journal", check_journal), ("spec and journal", check_configs), ("trials", check_trials),
        ("rows", files.check_rows), ("tables", files.check_tables), ("comparison", files.check_comparison),
        ("report", files.check_report), ("checkpoints", files.check_checkpoints), ("models", files.check_models),
        ("start", files.check_start), ("leftovers", check_leftovers), ("MLflow", mlflow.check),
        ("disk", check_disk),
    ]  # fmt: skip
    if not holding:
        checks.insert(0, ("lease", check_lease))
    found: list[Found] = []
    for name, check in checks:
        try:
            found += check(sweep)
        except Exception as error:  # a file can be damaged in ways that nobody thought of
            said = str(error).splitlines()[0] if str(error) else ""
            found.append(Found(Finding(name, BAD, f"could not be checked: {type(error).__name__}: {said}")))
    return found


def repair(path: Path, report: Report, salvage: bool) -> Iterator[str]:
    """Repair what can be repaired and say what was done.

    Args:
        path: the sweep folder.
        report: writes a folder's report.
        salvage: also give up what is damaged beyond repair, keeping the rest.

    Raises:
        LeaseHeld: a driver runs the sweep.
    """
    if places.remote_of(path) is not None:
        raise UserError(f"{path} is a working copy of a sweep on a store: remove it, and name the sweep by its URL")
    tried: set[tuple[str, str]] = set()
    _make_takable(path)
    with Lease(path):
        for _ in range(ROUNDS):
            found = [
                each for each in examine(path, report, holding=True) if each.repair and (salvage or not each.loses)
            ]
            todo = [each for each in found if (each.finding.what, each.finding.says) not in tried]
            if not todo:
                return
            for each in todo:
                tried.add((each.finding.what, each.finding.says))
                assert each.repair is not None
                try:
                    yield f"{each.finding.what}: {each.repair()}"
                except Exception as error:
                    yield f"{each.finding.what}: could not be repaired: {type(error).__name__}: {error}"


def _make_takable(path: Path) -> None:
    """Have a lease that is lost know its epoch where the journal, which else would say it, cannot be read either."""
    if isinstance(lease.read(path).get("epoch"), int) or lease.held(path):
        return
    place = path / "journal.jsonl"
    try:
        journal.read(place)
    except journal.JournalError:
        atomic_write(path / "lease.json", json.dumps({"epoch": records.newest_epoch(place.read_bytes())}).encode())


def check_lease(sweep: Sweep) -> Iterator[Found]:
    """Who holds the sweep, or held it last."""
    said = lease.read(sweep.path)
    who = f"process {said.get('pid')} on {said.get('host')}" if said else "nobody"
    if sweep.living:
        yield Found(Finding("lease", OK, f"{who} is running this sweep", "what it is writing now is not judged"))
    elif not said and (sweep.path / "lease.json").exists():
        yield Found(Finding("lease", WARN, "lease.json cannot be read; the next driver writes it anew"))
    elif said and not said.get("released") and "beat" in said:
        yield Found(Finding("lease", OK, f"free; {who} held it last and died without a word"))
    else:
        yield Found(Finding("lease", OK, f"free; {who} held it last" if said else "free; nobody ever held it"))


def check_spec(sweep: Sweep) -> Iterator[Found]:
    """Whether spec.json can be read and is a spec."""
    from cluster.consistency_mlflow import stored_spec

    place, wrong = sweep.path / "spec.json", ""
    try:
        sweep.plain = json.loads(place.read_bytes())
        data = {key: value for key, value in sweep.plain.items() if key != "resolved"}
        sweep.spec = SweepSpec.model_validate(data)
        sweep.spec.model_dump(mode="json")
    except FileNotFoundError:
        wrong = "missing"
    except (ValueError, AttributeError, TypeError) as error:
        first = str(error).splitlines()[0]
        wrong = f"not a spec ({first})" if sweep.plain else f"not JSON ({first})"
        sweep.spec = None
    if not wrong:
        chosen = "" if "resolved" in sweep.plain else "; nothing is resolved yet"
        yield Found(Finding("spec", OK, f"{sweep.spec.name if sweep.spec else ''}, valid{chosen}"))
        return

    def restore() -> str:
        data = stored_spec(sweep.path)
        if data is None:
            return "MLflow has no copy of it"
        set_aside(place)
        atomic_write(place, data)
        return "restored from MLflow"

    copy = stored_spec(sweep.path) is not None
    step = (
        "--repair restores it from MLflow" if copy else "restore spec.json from a copy: the sweep cannot go on without"
    )
    yield Found(Finding("spec", BAD, wrong, step), restore if copy else None)


def check_journal(sweep: Sweep) -> Iterator[Found]:
    """Whether the journal is whole and does not contradict itself."""
    place = sweep.path / "journal.jsonl"
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        traces = [name for name in ("rows", "checkpoints", "models", "trials.parquet") if _any(sweep.path / name)]
        if traces:
            says = f"missing, though there are {', '.join(traces)}: what was done is lost but for the numbers there"
            yield Found(Finding("journal", BAD, says, "restore it from a copy; a resume would begin from nothing"))
        else:
            sweep.told = History()
            yield Found(Finding("journal", OK, "none yet: the sweep has not begun"))
        return
    found = records.audit(data)
    if not found.sound and not found.newer:
        sound, told = records.sound_records(data), elsewhere.records_of(_events(sweep.path), sweep.spec)
        if not any(record["type"] == "open" for record in (*sound, *told)):
            told.insert(0, elsewhere.opening(sound, sweep.path.name))
        found = records.audit(data, told)
    if found.newer:
        yield Found(Finding("journal", BAD, found.newer, "use the musweep that wrote it, or a newer one"))
        return
    stale = f", {text.plural(found.stale, 'commit')} of a stale writer that do not count" if found.stale else ""
    if found.sound:
        sweep.told = found.history
        says = f"{text.plural(found.commits, 'commit')}, {text.plural(len(found.history.trials), 'trial')}{stale}"
        yield Found(Finding("journal", OK, says))
        if found.tail is not None:
            yield _tail(sweep, data, *found.tail)
        return
    where = "; ".join(f"bytes {start} to {end}" for start, end in found.damage[:3])
    says = f"damaged in the middle ({where})" if found.damage else f"contradicts itself: {found.wrong[0]}"
    more = f" (and {len(found.wrong) - 1} more)" if not found.damage and len(found.wrong) > 1 else ""
    step = f"restore it from a copy; or --repair --salvage, which loses {records.losses(found)}"
    yield Found(Finding("journal", BAD, says + more, step), lambda: _salvage(sweep, data, found), loses=True)


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        return events.read(path)
    except OSError:
        return []


def _tail(sweep: Sweep, data: bytes, start: int, torn: bool) -> Found:
    octets = len(data) - start
    if torn:
        says = (
            f"torn at byte {start}: the last {octets} bytes are of a commit that was never whole, as a kill leaves it"
        )
        state, step = WARN, "the next driver cuts it off; so does --repair"
    else:
        says = f"the last commits, {octets} bytes from byte {start} on, are damaged, which no kill does"
        state, step = BAD, "restore the file from a copy; or --repair cuts them off, and a resume trains them again"

    def cut() -> str:
        set_aside(sweep.path / "journal.jsonl", copy=True)
        journal.Journal(sweep.path / "journal.jsonl").close()
        return f"{octets} bytes cut off; the file as it was is beside it"

    return Found(Finding("journal", state, says, step), cut)


def _salvage(sweep: Sweep, data: bytes, found: records.Audit) -> str:
    """Put the journal that follows from the sound commits in place of the damaged one."""
    again = records.audit(found.saved)
    if again.damage or again.wrong or again.tail:
        return f"cannot be salvaged: {(again.wrong or ['it stays damaged'])[0]}"
    history.fold(journal.scan(found.saved)[0])
    aside = set_aside(sweep.path / "journal.jsonl", copy=True)
    atomic_write(sweep.path / "journal.jsonl", found.saved)
    assert len(data) == found.size
    return f"salvaged, lost: {records.losses(found)}; the file as it was: {aside.name}"


def set_aside(path: Path, copy: bool = False) -> Path:
    """Give a file another name, or copy it there, and return that; nothing to do where there is none."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
    if path.exists():
        if copy:
            atomic_write(aside, path.read_bytes())
        else:
            path.replace(aside)
    return aside


def _any(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def check_configs(sweep: Sweep) -> Iterator[Found]:
    """Whether the spec still gives the trials that the journal has: spec.json carries no checksum of its own."""
    if sweep.spec is None or not sweep.told:
        return
    asked = [t for t in sweep.told.trials.values() if t.stage == stages.SEARCH]
    for trial in (asked[0], asked[-1]) if asked else ():
        try:
            config = sweep.spec.config(trial.number, trial.params, trial.stage, trial.replicate)
        except (ValueError, KeyError) as error:
            wrong = str(error)
        else:
            mine, theirs = _leaves(json.loads(json.dumps(config))), _leaves(trial.config)
            unlike = [name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]]
            wrong = ", ".join(f"{name} {mine[name]} instead of {theirs[name]}" for name in sorted(unlike)[:2])
        if wrong:
            says = f"spec.json would now train {trial.id} otherwise than it was: {wrong}"
            yield Found(Finding("spec and journal", BAD, says, "restore spec.json from a copy"))
            return


def _leaves(data: Any, path: str = "") -> dict[str, Any]:
    """The values of nested mappings by path."""
    if not isinstance(data, dict):
        return {path: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _leaves(value, f"{path}.{key}" if path else str(key))
    return found


def check_trials(sweep: Sweep) -> Iterator[Found]:
    """What the journal says of the sweep as a whole."""
    told = sweep.told
    if told is None or not told.trials:
        return
    running = sum(trial.state == "running" for trial in told.trials.values())
    if sweep.living or told.closed in ("finished", "budget"):
        yield Found(Finding("trials", OK, f"{len(told.trials)}, {running} running, sweep {told.closed or 'running'}"))
        return
    says = f"{len(told.trials)}, {running} to be gone on with; {told.closed or 'its driver died'}"
    yield Found(Finding("trials", OK, says, f"musweep resume {sweep.path}"))


def check_leftovers(sweep: Sweep) -> Iterator[Found]:
    """Temporary files whose writers are gone."""
    left = [path for pattern in retention.TEMPORARY for path in sweep.path.glob(pattern) if not _written(path)]
    if not left:
        return

    def clear() -> str:
        import shutil

        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return f"{text.plural(len(left), 'file')} removed"

    says = f"{text.plural(len(left), 'temporary file')}, {text.size(sum(map(retention.size, left)))}"
    yield Found(Finding("leftovers", WARN, says, "--repair removes them, so does musweep gc"), clear)


def _written(path: Path) -> bool:
    """Whether a temporary file's writer may still live: its process is in the name, and another host's is not known."""
    parts = path.name.split(".")
    pid = parts[-2] if len(parts) > 2 and parts[-1] == "tmp" else ""
    try:
        if time.time() - path.lstat().st_mtime > retention.TEMPORARY_S:
            return False
    except OSError:
        return False
    return not pid.isdigit() or int(pid) == os.getpid() or Path(f"/proc/{pid}").exists()


def check_disk(sweep: Sweep) -> Iterator[Found]:
    """How large it is, and whether there is room to go on."""
    ray, whole = retention.size(sweep.path / "ray"), retention.size(sweep.path)
    if ray > GIB // 10:
        says = f"{text.size(whole)}, of which ray/ {text.size(ray)}, never read back"
        yield Found(Finding("size", WARN, says, "musweep gc removes ray/ of finished sweeps"))
    else:
        yield Found(Finding("size", OK, text.size(whole)))
    room = disk("disk", sweep.path)
    yield Found(room if room.state == OK else replace(room, state=WARN))  # no fault of this folder's
