"""Shapeset-3x2: one or two triangles, parallelograms or ellipses on a plain ground; which ones is the class.

GB10 section 2, by the steps of its generator (SCIENCE 10), drawn online. The nine classes are T, Q, E, TQ, QE, TE, TT,
QQ, EE; each single one has prior 1/6, each mixed pair 1/9, each equal pair 1/18, so that chance errs in 5/6 of
images. An image is a look-alike: a pixel has the grey of the last polygon that its centre lies in, where the original
left the outline to the rounding of a game library; and the numbers are drawn for many images at once, in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import Split, Task
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, described

VERSION = 1
SIDE = 32
POOL, HELD_OUT = 5_000, 10_000  # training images drawn at once; images of the valid and of the test part (GB10)
CORNERS = np.array([3, 4, 20])  # triangle, parallelogram, ellipse
SINGLES = np.array([0, 1, 2])  # classes, by kind
PAIRS = np.array([[6, 3, 5], [3, 7, 4], [5, 4, 8]])  # by the two kinds
_MOST = 20  # corners
_TURNS = 255  # steps of a full turn
_DARK, _BRIGHT = (0, int(0.45 * 255)), (int(0.55 * 255), 255)  # greys, both ends included
_SCALE = (0.2, 0.8)  # of the side
_HIDDEN = 0.5  # of the first polygon's area, at most
_REJECTIONS = 50
_CHUNK = 500  # images drawn at once: they stay in the cache of a core

Floats = NDArray[np.floating[Any]]


def load(name: str, options: Options, cache: Path) -> Task:
    """Draw the valid and the test part once per host, and training images as training goes on.

    With the option `examples` training has so many, the same ones in every epoch.
    """
    info = described(name, options)
    size = options.size or SIDE
    held_out = options.holdout or HELD_OUT
    source = f"look-alike of Shapeset-3x2, generator {VERSION}, seed {options.seed}, {size} pixels a side"
    counts = (options.examples or POOL, held_out, held_out)

    def build() -> Data:
        parts = [images(np.random.default_rng([options.seed, n]), count, size) for n, count in enumerate(counts, 1)]
        inputs, classes = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Data(inputs, classes, counts, source, True)

    data = cached(cache, name, VERSION, f"seed={options.seed} size={size} counts={counts}", build)
    assert data.classes is not None
    ends = np.cumsum((0, *counts)).tolist()
    train, valid, test = (Split(data.inputs[a:b], data.classes[a:b]) for a, b in pairwise(ends))
    draw = None if options.examples else Draw(options.seed, size)
    source = f"{data.source}, {'drawn as training goes on' if draw else f'{len(train)} training images'}"
    return Task(info, train, valid, test, source, True, draw=draw)


@dataclass(frozen=True)
class Draw:
    """New training images: a function of the task's seed and one more."""

    seed: int
    size: int

    def __call__(self, seed: int, count: int) -> Split:
        """Return `count` images with classes."""
        return Split(*images(np.random.default_rng([self.seed, 0, seed]), count, self.size))


def images(rng: np.random.Generator, count: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw images, [N, size^2], grey 0 to 255 as -1 to 1, and their classes, [N]."""
    pixels = np.empty((count, size, size), np.float32)
    classes = np.empty(count, np.int64)
    for start in range(0, count, _CHUNK):
        some = slice(start, start + _CHUNK)
        _draw(rng, pixels[some], classes[some])
    pixels *= 2 / 255
    pixels -= 1
    return pixels.reshape(count, -1), classes


def _draw(rng: np.random.Generator, pixels: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
    """Fill a chunk of images with greys 0 to 255; the steps are those of SCIENCE 10."""
    count, size = len(pixels), pixels.shape[1]
    bright = rng.random(count) > 0.5  # step 1: whether the shapes are brighter than their ground
    two = rng.integers(1, 3, count) == 2  # step 2
    pixels[...] = _greys(rng, ~bright)[:, None, None]  # step 3
    kinds = rng.integers(0, 3, (count, 2))  # step 4: of each polygon
    steps = _TURNS // CORNERS[kinds]
    before = rng.integers(0, steps)
    before = np.where(before > steps // 2, before - steps, before)  # to either side of 0
    after = rng.integers(0, _TURNS - 1, (count, 2))
    first = placed(rng, kinds[:, 0], before[:, 0], after[:, 0], size)
    which = np.flatnonzero(two)
    second = Polygons(np.zeros((count, _MOST, 2)), np.zeros((count, 2)), np.ones(count))
    for _ in range(_REJECTIONS):
        if not len(which):
            break
        tried = placed(rng, kinds[which, 1], before[which, 1], after[which, 1], size)
        good = hidden(first.take(which), tried) <= _HIDDEN  # step 5
        second.put(which[good], tried.take(good))
        which = which[~good]
    two[which] = False  # no place was found: the image keeps the one it has
    for polygons, drawn in ((first, np.arange(count)), (second, np.flatnonzero(two))):  # step 6
        grey = _greys(rng, bright)[drawn, None, None]
        some = polygons.take(drawn)
        inside = filled(some.corners + some.centre[:, None], size)
        pixels[drawn] = np.where(inside, grey, pixels[drawn])
    classes[...] = np.where(two, PAIRS[kinds[:, 0], kinds[:, 1]], SINGLES[kinds[:, 0]])


def _greys(rng: np.random.Generator, bright: NDArray[np.bool_]) -> NDArray[np.float32]:
    dark, light = (rng.integers(*ends, len(bright), endpoint=True) for ends in (_DARK, _BRIGHT))
    return np.where(bright, light, dark).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Polygons:
    """A polygon for each of N images: corners [N, 20, 2] around the centre [N, 2], in pixels (x, y); area [N].

    Those with fewer corners repeat their last one.
    """

    corners: Floats
    centre: Floats
    area: Floats

    def take(self, which: NDArray[np.generic]) -> Polygons:
        """Return those of some images."""
        return Polygons(self.corners[which], self.centre[which], self.area[which])

    def put(self, which: NDArray[np.int64], others: Polygons) -> None:
        """Set those of some images."""
        self.corners[which], self.centre[which], self.area[which] = others.corners, others.centre, others.area


def placed(
    rng: np.random.Generator,
    kinds: NDArray[np.int64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    size: int,
) -> Polygons:
    """Scale, turn and place polygons of given kinds and rotation steps: what a rejection draws again."""
    scale = np.sort(rng.uniform(*_SCALE, (len(kinds), 2)) * size)[:, ::-1]  # the larger first
    n = CORNERS[kinds]
    angle = -np.pi / 2 + np.pi / n[:, None] * (2 * np.minimum(np.arange(_MOST), n[:, None] - 1) + 1)  # base horizontal
    corners: Floats = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=2)
    turn = 2 * np.pi / _TURNS * before
    corners = turned(corners, turn)
    corners *= scale[:, None]
    back = -np.arctan(scale[:, 1] / scale[:, 0] * np.tan(turn))  # the base is horizontal again
    corners = turned(corners, back + 2 * np.pi / _TURNS * after)
    low, high = 1 - corners.min(1), size - 1 - corners.max(1)  # all of it a pixel inside
    centre = low + (high - low) * rng.random((len(kinds), 2))
    return Polygons(corners, centre, scale.prod(1) * n * np.sin(2 * np.pi / n) / 8)


def turned(corners: Floats, angle: Floats) -> Floats:
    """Turn corners [N, C, 2] around 0 by angles [N], from x to y."""
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = corners[..., 0], corners[..., 1]
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=2)


def hidden(old: Polygons, new: Polygons) -> Floats:
    """Estimate which share of the old polygons' areas the new ones hide, [N]; above 1/2 they are refused.

    Both are projected on the line of their centres, where they reach p together, the centres being d apart: 0 when
    p < d, else (1 - 2^-((p - d) / d)) times the ratio of areas. Of old centres only the whole pixels are known.
    """
    line = new.centre - np.trunc(old.centre)
    d = np.maximum(np.sqrt(np.square(line).sum(1)), 1e-9)
    line /= d[:, None]
    reach = np.einsum("ncd,nd->nc", old.corners, line).max(1) + np.einsum("ncd,nd->nc", new.corners, -line).max(1)
    share: Floats = (1 - np.exp2(-np.maximum(reach - d, 0) / d)) * new.area / old.area
    return share


def filled(corners: Floats, size: int) -> NDArray[np.bool_]:
    """Say which pixel centres lie in convex polygons with corners [N, C, 2]: [N, rows, columns].

    Scan lines: a row's centre line enters and leaves a convex polygon where the edges cross it.
    """
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x, y = (corners[..., axis, None].astype(np.float32) for axis in (0, 1))
    dx, dy = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
    slope = dx / np.where(dy == 0, 1, dy)  # an edge along the row crosses no line
    crossed = (y <= centres) != (np.roll(y, -1, 1) <= centres)
    at = x + (centres - y) * slope
    left = np.where(crossed, at, np.inf).min(1)
    right = np.where(crossed, at, -np.inf).max(1)
    inside: NDArray[np.bool_] = (left[:, :, None] <= centres) & (centres < right[:, :, None])
    return inside
