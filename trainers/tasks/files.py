"""Where data come from: folders under $MUSWEEP_DATA, downloads checked by hash, MATLAB files."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.tasks.options import TaskError


def prepared(name: str) -> Path | None:
    """Return the folder `name` of $MUSWEEP_DATA, where data that need no download are looked for first."""
    data = os.environ.get("MUSWEEP_DATA")
    folder = Path(data).expanduser() / name if data else None
    return folder if folder and folder.is_dir() else None


def sha256(task: str, file: Path) -> str:
    """Hash a file that the user named. Raises TaskError when it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise TaskError(f"task {task}: option file={file}: {error.strerror}") from None


def download(task: str, sources: Sequence[str], hashes: Mapping[str, str], folder: Path, advice: str) -> str:
    """Download the files that `hashes` names (to "algorithm:digest") into a folder; return the source that had them.

    A source is an address that the names complete, or ends with the name of the only file. Raises TaskError with
    `advice`, which says which file to put where, when no source can be reached or has the right files.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    reason = ""
    for source in sources:
        try:
            for name, digest in hashes.items():
                url = source + name if source.endswith("/") else source
                pooch.retrieve(url, digest, fname=name, path=folder)
            return source
        except (OSError, ValueError) as error:  # no network, refused, or (ValueError) another file than expected
            reason = type(error).__name__
    raise TaskError(f"task {task}: cannot be downloaded ({reason}): {advice}")


def matlab(task: str, file: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Read arrays of a .mat file. Raises TaskError when it is none or lacks one of the keys."""
    from scipy.io import loadmat

    try:
        content = loadmat(file, variable_names=list(keys))
    except Exception as error:  # on a file of another kind scipy's parser fails in many ways, IndexError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(f"task {task}: option file={file}: not a MATLAB file this can read ({reason})") from error
    for key in keys:
        if key not in content:
            raise TaskError(f"task {task}: option file={file}: has no {key}; expected {' and '.join(keys)}")
    return {key: content[key] for key in keys}


def npz(task: str, file: Path, keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Read arrays of an .npz file, all of them or some. Raises TaskError when it is none or lacks one of the keys.

    Objects are refused: reading them would run what is in the file.
    """
    import numpy as np

    if not file.is_file():
        raise TaskError(f"task {task}: {file}: no such file")
    if not zipfile.is_zipfile(file):
        raise TaskError(f"task {task}: {file} is no .npz file")
    try:
        with np.load(file, allow_pickle=False) as content:
            names = content.files if keys is None else keys
            if missing := [name for name in names if name not in content.files]:
                raise TaskError(f"task {task}: {file} has no {missing[0]}; expected {', '.join(names)}")
            return {name: content[name] for name in names}
    except TaskError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise TaskError(f"task {task}: {file} is no .npz file of numbers ({' '.join(str(error).split())})") from None
