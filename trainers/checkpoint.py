"""Trials as bytes and back: an npz archive, whose members carry checksums; never a pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Mapping

import numpy as np

from trainers.state import TrialState


class DamagedStateError(ValueError):
    """The bytes are no whole archive of trial states."""


def pack(states: Mapping[int, TrialState]) -> bytes:
    """All states in one archive, arrays named `NUMBER/ARRAY`."""
    arrays = {f"{n}/{name}": array for n, state in states.items() for name, array in state.to_arrays().items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpack(data: bytes, wanted: Collection[int] | None = None) -> dict[int, TrialState]:
    """The wanted states (all by default) of an archive.

    Raises:
        DamagedStateError: the bytes are cut, changed or something else.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for name in archive.files:
                number, _, array = name.partition("/")
                if wanted is None or int(number) in wanted:
                    found.setdefault(int(number), {})[array] = archive[name]
        return {number: TrialState.from_arrays(arrays) for number, arrays in found.items()}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DamagedStateError(f"damaged state archive: {error}") from error
