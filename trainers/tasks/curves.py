"""CURVES: 28x28 images of a smooth curve through a few random points, an autoencoder's task with 6 true dimensions.

The original images (`digs3pts_1.mat`) are used when the user has them. Otherwise they are drawn by a law of our
own, since the original's was not published: a quadratic Bezier curve with control points uniform in the square
[5, 23]^2, under a Gaussian pen. It meets the two marks that are known (SCIENCE 4.3): the error of the mean image
is 16.15 (published: 16), and 18 principal components, fitted on train, leave 5.89 on test (published: 5.90). It
remains a look-alike, and says so.

Other sizes scale the square but not the pen, which could not be thinner than a pixel: at 14x14 the error of the mean
image is 7.05, the plateau of the short protocols (SCIENCE 11: 7.1).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import files
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, TaskError

VERSION = 1
TRAIN, VALID, TEST = 20_000, 5_000, 10_000
SIDE = 28
_MARGIN = 5.0  # pixels between the control points and each edge
_PEN = 0.8  # standard deviation of the Gaussian pen, in pixels
_POINTS = 60  # of the curve, at equal steps of its parameter
_CHUNK = 250  # images drawn at once: they stay in the cache of a core


def load(name: str, options: Options, cache: Path) -> Data:  # noqa: ARG001 - as all tasks load
    """Draw the look-alike, or read the user's file. Raises TaskError as `from_file` does."""
    return (
        from_file(Path(options.file), cache) if options.file else generated(options.seed, cache, options.size or SIDE)
    )


def generated(seed: int, cache: Path, size: int = SIDE) -> Data:
    """Draw the look-alike: 20,000 train, 5,000 valid and 10,000 test images, each part from its own stream."""
    key, source = f"seed={seed}", f"look-alike of CURVES, generator {VERSION}, seed {seed}"
    if size != SIDE:
        key, source = f"{key} size={size}", f"{source}, {size} pixels a side"

    def build() -> Data:
        inputs = np.empty((TRAIN + VALID + TEST, size * size), np.float32)
        start = 0
        # The streams are numbered in the order train, test, valid: the papers' parts come first.
        for count, stream in ((TRAIN, 0), (VALID, 2), (TEST, 1)):
            draw(np.random.default_rng([seed, stream]), inputs[start : start + count])
            start += count
        return Data(inputs, None, (TRAIN, VALID, TEST), source, True)

    return cached(cache, "curves", VERSION, key, build)


def draw(rng: np.random.Generator, images: NDArray[np.float32]) -> None:
    """Fill images [N, side^2] with curves in [0, 1]; pixel (row y, column x) has its centre at (x + .5, y + .5)."""
    side = math.isqrt(images.shape[1])
    margin = _MARGIN * (side / SIDE)
    controls = rng.uniform(margin, side - margin, (len(images), 3, 2))
    t = np.linspace(0, 1, _POINTS)
    bernstein = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    centres = np.arange(side) + 0.5
    product = np.empty((_CHUNK, side, side), np.float32)
    for start in range(0, len(images), _CHUNK):
        points = np.einsum("kp,nkd->pdn", bernstein, controls[start : start + _CHUNK])
        # exp(-d^2 / 2s^2) is a product of one factor in x and one in y, and is largest at the nearest point.
        factors = np.exp((centres - points[..., None]) ** 2 / (-2 * _PEN**2)).astype(np.float32)
        chunk = images[start : start + _CHUNK].reshape(-1, side, side)
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

    def build() -> Data:
        train, test = _read_mat(file)
        return Data(np.concatenate([train, test]), None, (len(train), 0, len(test)), f"CURVES, file {file}", False)

    return cached(cache, "curves-file", VERSION, files.sha256("curves", file), build)


def _read_mat(file: Path) -> list[NDArray[np.float32]]:
    content = files.matlab("curves", file, ["bdata", "bdatatest"])
    parts = []
    for key in content:
        part = np.asarray(content[key], dtype=np.float32)
        if part.ndim != 2 or part.shape[1] != SIDE * SIDE or len(part) < 2:
            raise TaskError(f"task curves: option file={file}: {key} is {part.shape}, expected rows of {SIDE * SIDE}")
        if not (part.min() >= 0 and part.max() <= 1):
            raise TaskError(f"task curves: option file={file}: {key} has pixels outside [0, 1]")
        parts.append(part)
    return parts
