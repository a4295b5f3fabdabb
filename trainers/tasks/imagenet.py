"""Small-ImageNet: a folder of the user's images, one folder per class in it, as 37x37 grey pixels in [0, 1].

GB10 section 2 drew 110,000 images of ten broad classes (reptiles, vehicles, birds, ...) from ImageNet and split them
into 90,000 / 10,000 / 10,000; which images is not known, so whatever is in the folder is split in this proportion,
and called a look-alike. Of each image the largest square in the middle is scaled down.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import files
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, TaskError, described

VERSION = 1
SIDE = 37
_HELD_OUT = 11  # an eleventh of all images is valid, one more test
_FEWEST = 11


def load(name: str, options: Options, cache: Path) -> Data:
    """Read the images of $MUSWEEP_DATA/small-imagenet, or of the folder that the option `file` names.

    Classes are numbered in the order of the folders' names. Raises TaskError when the folder is missing, has another
    number of classes than the option `classes`, or holds what is no image.
    """
    folder = Path(options.file).expanduser() if options.file else files.prepared(name)
    if folder is None:
        raise TaskError(
            f"task {name}: name a folder of images, one folder per class in it, with the option file, or set "
            f"MUSWEEP_DATA to a folder that holds it as {name}"
        )
    listed = _listed(name, folder, described(name, options).outputs)
    states = [(file.relative_to(folder).as_posix(), file.stat()) for file, _ in listed]
    key = hashlib.sha256(repr([(path, state.st_size, state.st_mtime_ns) for path, state in states]).encode())

    def build() -> Data:
        order = np.random.default_rng([options.seed, 0]).permutation(len(listed))
        paths = [listed[n][0] for n in order]
        with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
            pixels = np.stack(list(pool.map(lambda path: _grey(name, path), paths)))
        held_out = len(listed) // _HELD_OUT
        counts = (len(listed) - 2 * held_out, held_out, held_out)
        classes = np.array([listed[n][1] for n in order], dtype=np.int64)
        source = f"folder {folder}, {len(listed)} images, order of seed {options.seed}"
        return Data(pixels.astype(np.float32) / np.float32(255), classes, counts, source, True)

    return cached(cache, name, VERSION, f"{folder.absolute()} {key.hexdigest()} seed={options.seed}", build)


def _listed(name: str, folder: Path, classes: int) -> list[tuple[Path, int]]:
    """Return all files with their classes, in an order that does not depend on the file system."""
    try:
        groups = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError as error:
        raise TaskError(f"task {name}: option file={folder}: {error.strerror}") from None
    if len(groups) != classes:
        raise TaskError(
            f"task {name}: {folder} has {len(groups)} folders, expected one for each of {classes} classes "
            "(option classes)"
        )
    listed = []
    for number, group in enumerate(groups):
        found = sorted(each for each in group.rglob("*") if each.is_file() and not each.name.startswith("."))
        if not found:
            raise TaskError(f"task {name}: {group} holds no images")
        listed += [(file, number) for file in found]
    if len(listed) < _FEWEST:
        raise TaskError(f"task {name}: {folder} holds {len(listed)} images; {_FEWEST} or more make three parts")
    return listed


def _grey(name: str, path: Path) -> NDArray[np.uint8]:
    """Decode an image: [SIDE^2], the middle square, scaled with each pixel the mean of those it stands for."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.draft("L", (2 * SIDE, 2 * SIDE))  # JPEG decodes straight to a smaller grey image, much faster
            grey = image.convert("L")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no image that can be read" if isinstance(error, UnidentifiedImageError) else error
        raise TaskError(f"task {name}: {path}: {' '.join(str(reason).split())}; remove or replace it") from None
    side = min(grey.size)
    left, top = (grey.width - side) / 2, (grey.height - side) / 2
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX, (left, top, left + side, top + side))
    return np.asarray(small, dtype=np.uint8).reshape(-1)
