"""Digits: 1,797 grey 8x8 images in ten classes that come with scikit-learn, for quick sweeps without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options

VERSION = 1
TRAIN, VALID, TEST = 1_097, 350, 350


def load(name: str, options: Options, cache: Path) -> Data:
    """Map the digits, pixels divided by 16, in a seeded order: 1,097 train, 350 valid, 350 test."""
    seed = options.seed

    def build() -> Data:
        from sklearn.datasets import load_digits

        inputs, classes = load_digits(return_X_y=True)
        order = np.random.default_rng([seed, 0]).permutation(len(classes))
        source = f"digits of scikit-learn, order of seed {seed}"
        images = (inputs[order] / 16).astype(np.float32)
        return Data(images, classes[order].astype(np.int64), (TRAIN, VALID, TEST), source, False)

    return cached(cache, name, VERSION, f"seed={seed}", build)
