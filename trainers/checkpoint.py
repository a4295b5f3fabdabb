"""Trials as bytes and back: an npz archive, whose members carry checksums; never a pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainers.state import TrialState


class DamagedStateError(ValueError):
    """The bytes are no whole archive of trial states."""


class Packable(Protocol):
    """A state that names its arrays."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Name every number."""


def pack(states: Mapping[int, Packable]) -> bytes:
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
    found = arrays(data, wanted)
    try:
        return {number: TrialState.from_arrays(named) for number, named in found.items()}
    except (ValueError, KeyError) as error:
        raise DamagedStateError(f"damaged state archive: {error}") from error


def arrays(data: bytes, wanted: Collection[int] | None = None) -> dict[int, dict[str, NDArray[Any]]]:
    """The wanted trials' arrays of an archive, by name.

    Raises:
        DamagedStateError: the bytes are cut, changed or something else.
    """
    found: dict[int, dict[str, NDArray[Any]]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for name in archive.files:
                number, _, array = name.partition("/")
                if wanted is None or int(number) in wanted:
                    found.setdefault(int(number), {})[array] = archive[name]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DamagedStateError(f"damaged state archive: {error}") from error
    return found
