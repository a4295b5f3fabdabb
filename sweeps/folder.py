"""The sweep folder's own files: where they lie and how the spec gets in and out (docs/on-disk.md)."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from sweeps import forks, places, remote
from sweeps.spec import SweepSpec
from sweeps.store import atomic_write


def create(spec: SweepSpec, out: Path | None = None) -> Path:
    """Make a sweep folder with its spec, and nothing resolved yet.

    Raises:
        FileExistsError: the folder holds a sweep already.
        FileNotFoundError: the state to start from is not there.
        RemoteError: the store does not take it.
    """
    name = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    storage = places.url_of(spec.storage)
    url = places.url_of(out) if out is not None else storage and places.under(storage, name)
    folder = (Path(spec.storage) / name if out is None else out) if not url else _working(url)
    if (folder / "spec.json").exists():
        there = places.shown(url) if url else str(folder)
        raise FileExistsError(
            f"{there} holds a sweep already: go on with `musweep resume {there}` or choose another --out"
        )
    start = None if spec.start is None else forks.stored_state(remote.folder_of(spec.start.sweep), spec.start)
    folder.mkdir(parents=True, exist_ok=True)
    if start is not None:  # before the spec: a folder with one is whole
        atomic_write(folder / forks.START, start)
        remote.keep(folder / forks.START, folder)
    write_spec_file(folder, spec.model_dump(mode="json"))
    return folder


def _working(url: str) -> Path:
    """The working folder of a sweep at a URL: as it is if there is a sweep, else emptied of what a removed one left."""
    if "spec.json" in remote.Remote(url).names():
        return remote.working_folder(url)
    folder = places.working(url)
    shutil.rmtree(folder, ignore_errors=True)
    places.mark(folder, url)
    return folder


def read_spec_file(folder: Path) -> dict[str, Any]:
    """All of spec.json: the spec, and under `resolved` what was chosen automatically.

    Raises:
        FileNotFoundError: the folder is no sweep.
    """
    try:
        data: dict[str, Any] = json.loads((folder / "spec.json").read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is not a sweep folder: it has no spec.json (see `musweep ls`)") from None
    return data


def write_spec_file(folder: Path, data: dict[str, Any]) -> None:
    """Replace spec.json atomically, on its store first if it has one."""
    text = json.dumps(data, indent=1).encode()
    if (there := remote.of(folder)) is not None:
        there.put("spec.json", text)
    atomic_write(folder / "spec.json", text)


def read_spec(folder: Path) -> SweepSpec:
    """The spec of a sweep folder."""
    data = read_spec_file(folder)
    data.pop("resolved", None)
    return SweepSpec.model_validate(data)
