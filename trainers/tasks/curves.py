"""CURVES: 28x28 images of a smooth curve through a few random points, an autoencoder's task with 6 true dimensions.

The original images (`digs3pts_1.mat`) are used when the user has them. Otherwise they are drawn by a law of our
own, since the original's was not published: a quadratic Bezier curve with control points uniform in the square
[5, 23]^2, under a Gaussian pen. It meets the two marks that are known (SCIENCE 4.3): the error of the mean image
is 16.15 (published: 16), and 18 principal components, fitted on train, leave 5.89 on test (published: 5.90). It
remains a look-alike, and says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.tasks.cache import Data, cached
from trainers.tasks.options import TaskError

VERSION = 1
TRAIN, VALID, TEST = 20_000, 5_000, 10_000
SIDE = 28
_MARGIN = 5.0  # pixels between the control points and each edge
_PEN = 0.8  # standard deviation of the Gaussian pen, in pixels
_POINTS = 60  # of the curve, at equal steps of its parameter
_CHUNK = 250  # images drawn at once: they stay in the cache of a core


def generated(seed: int, cache: Path) -> Data:
    """Draw the look-alike: 20,000 train, 5,000 valid and 10,000 test images, each part from its own stream."""

    def build() -> Data:
        inputs = np.empty((TRAIN + VALID + TEST, SIDE * SIDE), np.float32)
        start = 0
        # The streams are numbered in the order train, test, valid: the papers' parts come first.
        for count, stream in ((TRAIN, 0), (VALID, 2), (TEST, 1)):
            draw(np.random.default_rng([seed, stream]), inputs[start : start + count])
            start += count
        return Data(inputs, None, (TRAIN, VALID, TEST), f"look-alike of CURVES, generator {VERSION}, seed {seed}", True)

    return cached(cache, "curves", VERSION, f"seed={seed}", build)


def draw(rng: np.random.Generator, images: NDArray[np.float32]) -> None:
    """Fill images [N, 784] with curves in [0, 1]; pixel (row y, column x) has its centre at (x + .5, y + .5)."""
    controls = rng.uniform(_MARGIN, SIDE - _MARGIN, (len(images), 3, 2))
    t = np.linspace(0, 1, _POINTS)
    bernstein = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    centres = np.arange(SIDE) + 0.5
    product = np.empty((_CHUNK, SIDE, SIDE), np.float32)
    for start in range(0, len(images), _CHUNK):
        points = np.einsum("kp,nkd->pdn", bernstein, controls[start : start + _CHUNK])
        # exp(-d^2 / 2s^2) is a product of one factor in x and one in y, and is largest at the nearest point.
        factors = np.exp((centres - points[..., None]) ** 2 / (-2 * _PEN**2)).astype(np.float32)
        chunk = images[start : start + _CHUNK].reshape(-1, SIDE, SIDE)
        chunk[...] = 0
        for in_x, in_y in factors:
            stroke = np.multiply(in_y[:, :, None], in_x[:, None, :], out=product[: len(chunk)])
            np.maximum(chunk, stroke, out=chunk)


def from_file(file: Path, cache: Path) -> Data:
    """Read the original: a .mat file with `bdata` and `bdatatest`, a row of 784 pixels in [0, 1] per image.

    It brings no valid part: `holdout` of the last training images become it. Raises TaskError when the file
    is missing or holds something else.
    """
    file = file.expanduser()
    try:
        with file.open("rb") as stream:
            key = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise TaskError(f"task curves: option file={file}: {error.strerror}") from None

    def build() -> Data:
        train, test = _read_mat(file)
        return Data(np.concatenate([train, test]), None, (len(train), 0, len(test)), f"CURVES, file {file}", False)

    return cached(cache, "curves-file", VERSION, key, build)


def _read_mat(file: Path) -> list[NDArray[np.float32]]:
    from scipy.io import loadmat

    try:
        content = loadmat(file, variable_names=["bdata", "bdatatest"])
    except Exception as error:  # on a file of another kind scipy's parser fails in many ways, IndexError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(f"task curves: option file={file}: not a MATLAB file this can read ({reason})") from error
    parts = []
    for key in ("bdata", "bdatatest"):
        if key not in content:
            raise TaskError(f"task curves: option file={file}: has no {key}; expected bdata and bdatatest")
        part = np.asarray(content[key], dtype=np.float32)
        if part.ndim != 2 or part.shape[1] != SIDE * SIDE or len(part) < 2:
            raise TaskError(f"task curves: option file={file}: {key} is {part.shape}, expected rows of {SIDE * SIDE}")
        if not (part.min() >= 0 and part.max() <= 1):
            raise TaskError(f"task curves: option file={file}: {key} has pixels outside [0, 1]")
        parts.append(part)
    return parts
