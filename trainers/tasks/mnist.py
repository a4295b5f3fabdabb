"""MNIST from its four original files, pixels divided by 255 (SCIENCE 4.1), shared by `mnist` and `mnist-ae`.

Looked for in $MUSWEEP_DATA/mnist, else downloaded and checked by hash; a folder of the user's own (`file`) may
hold other data in the same format. The files bring 60,000 + 10,000 images and no valid part.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import files
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, TaskError

VERSION = 1
FILES = {  # sha256 of the files as first published
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_SIDE = 28


def load(name: str, options: Options, cache: Path) -> Data:  # noqa: ARG001 - one data set for two tasks
    """Map MNIST, or what a user's folder holds in MNIST's format: rows are train, then test, with classes.

    Raises TaskError when files are missing and cannot be downloaded, or are damaged.
    """
    if options.file is None:
        # The key is that of the originals: once prepared, neither the files nor a network are needed again.
        return cached(cache, "mnist", VERSION, _key(FILES), lambda: _original(cache))
    folder = Path(options.file).expanduser()
    return cached(cache, "mnist", VERSION, _key(_hashes(folder)), lambda: read(folder))


def read(folder: Path) -> Data:
    """Read a folder in MNIST's format without a cache, which takes numpy only. Raises TaskError as `load` does."""
    same = _hashes(folder) == FILES
    source = f"MNIST, folder {folder}" if same else f"folder {folder}, in the format of MNIST but not its files"
    return _parse(folder, source, not same)


def _original(cache: Path) -> Data:
    if folder := files.prepared("mnist"):
        for name, found in _hashes(folder).items():
            if found != FILES[name]:
                raise TaskError(
                    f"task mnist: {folder / name} is not the original (sha256 {found[:16]}, expected "
                    f"{FILES[name][:16]}); replace it, or name the folder with the option file to use it as it is"
                )
        return _parse(folder, f"MNIST, folder {folder}", False)
    folder = cache / "downloads" / "mnist"
    advice = (
        f"put {', '.join(FILES)} into a folder mnist and set MUSWEEP_DATA to the folder that holds it, "
        "or name the folder with the option file"
    )
    mirror = files.download(
        "mnist", MIRRORS, {name: f"sha256:{digest}" for name, digest in FILES.items()}, folder, advice
    )
    return _parse(folder, f"MNIST, downloaded from {mirror}", False)


def _hashes(folder: Path) -> dict[str, str]:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise TaskError(f"task mnist: {folder} lacks {', '.join(missing)}")
    return {name: files.sha256("mnist", folder / name) for name in FILES}


def _key(hashes: dict[str, str]) -> str:
    return " ".join(hashes[name] for name in FILES)


def _parse(folder: Path, source: str, look_alike: bool) -> Data:
    images, classes = [], []
    for part in ("train", "t10k"):
        pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
        labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
        if len(pixels) != len(labels) or pixels.shape[1:] != (_SIDE, _SIDE) or len(labels) < 2 or labels.max() > 9:
            raise TaskError(f"task mnist: {folder}: {part} has images {pixels.shape} and labels {labels.shape}")
        images.append(pixels.reshape(len(pixels), -1))
        classes.append(labels)
    inputs = np.concatenate(images).astype(np.float32)
    inputs /= 255
    counts = (len(images[0]), 0, len(images[1]))
    return Data(inputs, np.concatenate(classes).astype(np.int64), counts, source, look_alike)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: two zeros, type 8, number of dimensions, big-endian sizes, data."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"task mnist: {path} is damaged ({error})") from None
    start = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4"))
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != start + int(np.prod(shape)):
        raise TaskError(f"task mnist: {path} is not an idx file of bytes in {dimensions} dimensions")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
