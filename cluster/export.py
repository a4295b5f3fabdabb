"""`musweep export` and `musweep sync`: a sweep's tables, models and copies, made from its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.folders import UserError, find, read, trial

FORMATS = ("parquet", "csv")


def export_tables(typed: Path, format_: str, out: Path | None) -> list[Path]:
    """Write the tables `trials` and `rows` into a folder (default: `<sweep>/export`) and return their paths.

    Raises:
        UserError: an unknown format, or no such sweep.
    """
    if format_ not in FORMATS:
        raise UserError(f"--format={format_}: one of {', '.join(FORMATS)}")
    from sweeps.store import export

    folder = find(typed)
    return list(export(folder, format_, out or folder / "export"))


def export_model(typed: Path, name: str, out: Path | None) -> list[str]:
    """Write a trial's weights as a state_dict, or the state that its own trainer gave, and say how to load them.

    Raises:
        UserError: no such trial, or its weights were not kept or are damaged.
    """
    folder = read(typed)
    chosen = trial(folder, name)
    from sweeps import remote

    packed = folder.path / "models" / f"{chosen.id}.npz"
    if not remote.want(packed, folder.path):
        kept = remote.stems(folder.path, "models")
        have = f"kept: {', '.join(kept[:8])}{', ...' if len(kept) > 8 else ''}" if kept else "none are kept yet"
        if "trainer" in chosen.config:
            have += "; a trainer of your own gives them as trial.report(..., state=...)"
        raise UserError(f"{chosen.id} is {chosen.state}: weights are kept of complete trials only; {have}")
    from sweeps.modules import reach
    from trainers.checkpoint import DamagedStateError
    from trainers.config import TrialConfig
    from trainers.export import write_own_state, write_state_dict

    path = out or Path(f"{folder.path.name}-{chosen.id}.pt")
    if path.is_dir():
        path = path / f"{folder.path.name}-{chosen.id}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    reach(folder.spec.get("modules"))
    try:
        if "trainer" in chosen.config:
            write_own_state(packed.read_bytes(), chosen.number, path)
            return [str(path), f'load with: torch.load("{path}"); it is what {chosen.config["trainer"]} gave as state']
        net = TrialConfig.from_dict(chosen.config).net
        modules = write_state_dict(packed.read_bytes(), chosen.number, net, path)
    except DamagedStateError as error:
        raise UserError(f"{packed}: {error}; restore it from a copy") from None
    return [str(path), f'load with: net.load_state_dict(torch.load("{path}")), where net is', modules]


def rebuild(typed: Path, report: Callable[[Path], Path]) -> Iterator[str]:
    """Make everything anew that is derived from a sweep's journal, and say what was made.

    Raises:
        UserError: no such sweep, or MLflow does not take it.
        LeaseHeld: a driver is running the sweep.
    """
    from sweeps import compared, remote, store, tracking
    from sweeps.lease import Lease

    folder = read(typed)
    with Lease(folder.path), remote.publishing(folder.path):  # a running driver writes the same files itself
        store.RowWriter(folder.path, folder.history).close()
        store.write_derived(folder.path, folder.history)
        yield f"tables:  {folder.path / 'trials.parquet'}, rows/, events.jsonl"
        if (comparison := compared.write(folder.path)) is not None:
            yield f"compare: {comparison}"
        yield f"report:  {report(folder.path)}"
        try:
            yield f"MLflow:  {tracking.sync(folder.path)}"
        except Exception as error:  # MLflow raises whatever its server, database or network did
            first = str(error).splitlines()[0] if str(error) else ""
            raise UserError(f"MLflow: {type(error).__name__}: {first}; the rest is done, sync again later") from error
