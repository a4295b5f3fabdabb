"""FACES: 25x25 patches of turned and scaled faces, an autoencoder's task with linear outputs.

The original patches (`newfaces_rot_single.mat`) are used when the user has them. Otherwise they are cut by its recipe
(SCIENCE 4.2) from the same 400 Olivetti faces (AT&T Laboratories Cambridge): 414 of each face, turned by -90 to 90
degrees, each pixel of a patch 1.4 to 1.8 pixels of the face, zero mean per pixel, one scale for all. What the recipe
leaves open is chosen so that 30 principal components, fitted on train, leave the published error on test, 135
(H&S 2006): the patch is cut from the middle of the face, read by bilinear interpolation after a Gaussian of 0.45
pixels, which leaves 133.9 (without it 145). It remains a look-alike, and says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import files
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, TaskError

VERSION = 1
SIDE = 25
PEOPLE = (25, 5, 10)  # train, valid, test
PATCHES = 414  # of each face
_FACES, _PIXELS = 10, 64  # of one person; side of a face
_TURN = 90.0  # degrees, to either side
_SCALE = (1.4, 1.8)
_BLUR = 0.45  # standard deviation, in pixels of the face
_CHUNK = 2_000  # patches cut at once
_FILE = "olivettifaces.mat"
_SOURCES = ("https://ndownloader.figshare.com/files/5976027",)  # scikit-learn's, with its hash
_HASHES = {_FILE: "sha256:b612fb967f2dc77c9c62d3e1266e0c73d5fca46a4b8906c18e454d41af987794"}


def load(name: str, options: Options, cache: Path) -> Data:  # noqa: ARG001 - as all tasks load
    """Cut the look-alike, or read the user's file: 103,500 train, 20,700 valid, 41,400 test patches.

    No person is in two parts. Raises TaskError when the file cannot be used, or the faces cannot be had.
    """
    if options.file:
        return _from_file(Path(options.file).expanduser(), cache)
    return cached(cache, "faces", VERSION, f"seed={options.seed}", lambda: _generated(options.seed, cache))


def _generated(seed: int, cache: Path) -> Data:
    faces, origin = _olivetti(cache)
    first = 0
    parts = []
    for people, stream in zip(PEOPLE, (0, 2, 1), strict=True):  # numbered train, test, valid, as in curves
        some = faces[first : first + people * _FACES]
        parts.append(cut(some, PATCHES, np.random.default_rng([seed, stream])))
        first += people * _FACES
    patches = np.concatenate(parts)
    patches -= patches.mean(0, dtype=np.float64).astype(np.float32)
    patches /= np.float32(np.sqrt(np.square(patches).mean(dtype=np.float64)))
    counts = (len(parts[0]), len(parts[1]), len(parts[2]))
    source = f"look-alike of FACES, generator {VERSION}, seed {seed}, from the Olivetti faces, {origin}"
    return Data(patches, None, counts, source, True)


def cut(faces: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Cut `count` patches of each face, [N, 64, 64], from its middle: [count*N, 625], one of each face, then again.

    So the first examples of a part show all its people.
    """
    from scipy.ndimage import gaussian_filter

    faces = gaussian_filter(faces, (0, _BLUR, _BLUR))
    angle = np.deg2rad(rng.uniform(-_TURN, _TURN, count * len(faces)))
    scale = rng.uniform(*_SCALE, count * len(faces))
    across, down = (scale * np.cos(angle)).astype(np.float32), (scale * np.sin(angle)).astype(np.float32)
    y, x = (axis.reshape(-1) for axis in np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / np.float32(2))
    middle = (_PIXELS - 1) / np.float32(2)
    flat = faces.reshape(-1)
    patches = np.empty((len(angle), SIDE * SIDE), np.float32)
    for start in range(0, len(patches), _CHUNK):
        a, b = across[start : start + _CHUNK, None], down[start : start + _CHUNK, None]
        column, row = middle + a * x - b * y, middle + b * x + a * y
        left, top = column.astype(np.int64), row.astype(np.int64)  # a corner is 30.6 pixels from the middle: inside
        face = np.arange(start, start + len(a))[:, None] % len(faces)
        corner = (face * _PIXELS + top) * _PIXELS + left
        column -= left
        row -= top
        upper = flat[corner] * (1 - column) + flat[corner + 1] * column
        lower = flat[corner + _PIXELS] * (1 - column) + flat[corner + _PIXELS + 1] * column
        patches[start : start + _CHUNK] = upper * (1 - row) + lower * row
    return patches


def _olivetti(cache: Path) -> tuple[NDArray[np.float32], str]:
    """Return the faces, [400, 64, 64], ten of each person in a row, and where they came from."""
    folder, origin = files.prepared("olivetti"), ""
    if folder is None:
        folder = cache / "downloads" / "olivetti"
        advice = f"put {_FILE} into a folder olivetti and set MUSWEEP_DATA to the folder that holds it"
        origin = "downloaded from " + files.download("faces", _SOURCES, _HASHES, folder, advice)
    file = folder / _FILE
    if not file.is_file():
        raise TaskError(f"task faces: {folder} lacks {_FILE}")
    faces = files.matlab("faces", file, ["faces"])["faces"]
    expected = (_PIXELS * _PIXELS, sum(PEOPLE) * _FACES)
    if faces.shape != expected or faces.dtype != np.uint8:
        raise TaskError(f"task faces: {file}: faces is {faces.shape} {faces.dtype}, expected {expected} uint8")
    # A column per face, which holds its columns one after the other.
    images = faces.T.reshape(-1, _PIXELS, _PIXELS).transpose(0, 2, 1).astype(np.float32)
    return np.ascontiguousarray(images), origin or f"file {file}"


def _from_file(file: Path, cache: Path) -> Data:
    """Read the original: a .mat file with `newfaces_single`, a column of 625 pixels per patch, people in a row."""

    def build() -> Data:
        patches = np.asarray(files.matlab("faces", file, ["newfaces_single"])["newfaces_single"], dtype=np.float32)
        people = sum(PEOPLE)
        if patches.ndim != 2 or len(patches) != SIDE * SIDE or not patches.shape[1] or patches.shape[1] % people:
            raise TaskError(
                f"task faces: option file={file}: newfaces_single is {patches.shape}, expected {SIDE * SIDE} rows "
                f"and as many columns for each of {people} people"
            )
        if not np.isfinite(patches).all():
            raise TaskError(f"task faces: option file={file}: newfaces_single has values that are not finite")
        each = patches.shape[1] // people
        train, valid, test = (each * count for count in PEOPLE)
        return Data(np.ascontiguousarray(patches.T), None, (train, valid, test), f"FACES, file {file}", False)

    return cached(cache, "faces-file", VERSION, files.sha256("faces", file), build)
