"""The sweep folder's own files: where they lie and how the spec gets in and out (docs/on-disk.md)."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

from sweeps import forks
from sweeps.spec import SweepSpec
from sweeps.store import atomic_write


def create(spec: SweepSpec, out: Path | None = None) -> Path:
    """Make a sweep folder with its spec, and nothing resolved yet.

    Raises:
        FileExistsError: the folder holds a sweep already.
        FileNotFoundError: the state to start from is not there.
    """
    name = f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    folder = Path(spec.storage) / name if out is None else out
    if (folder / "spec.json").exists():
        raise FileExistsError(
            f"{folder} holds a sweep already: go on with `musweep resume {folder}` or choose another --out"
        )
    start = None if spec.start is None else forks.stored_state(Path(spec.start.sweep), spec.start)
    folder.mkdir(parents=True, exist_ok=True)
    if start is not None:  # before the spec: a folder with one is whole
        atomic_write(folder / forks.START, start)
    write_spec_file(folder, spec.model_dump(mode="json"))
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
    """Replace spec.json atomically."""
    atomic_write(folder / "spec.json", json.dumps(data, indent=1).encode())


def read_spec(folder: Path) -> SweepSpec:
    """The spec of a sweep folder."""
    data = read_spec_file(folder)
    data.pop("resolved", None)
    return SweepSpec.model_validate(data)
