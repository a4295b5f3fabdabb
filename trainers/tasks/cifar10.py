"""CIFAR-10: 60,000 small colour photographs in ten classes, pixels divided by 255, so in [0, 1] (GB10 section 2).

Looked for in $MUSWEEP_DATA/cifar10 (or the folder or file that the option `file` names), else downloaded and checked
by hash: the binary version, since reading the one for Python would run what is in it. A folder may hold a subset
instead, an .npz of `x_train`, `y_train`, `x_test`, `y_test`; its results are no CIFAR-10 results. An image is a row of
3,072: red, green and blue, each row after row.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainers.tasks import files
from trainers.tasks.cache import Data, cached
from trainers.tasks.options import Options, TaskError

VERSION = 1
ARCHIVE, MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
SOURCES = ("https://www.cs.toronto.edu/~kriz/",)
BATCHES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
EACH = 10_000  # images of a batch
_PIXELS = 3 * 32 * 32
_CLASSES = 10

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load(name: str, options: Options, cache: Path) -> Data:  # noqa: ARG001 - as all tasks load
    """Map CIFAR-10: 50,000 train, 10,000 test, of which the last 10,000 of train become valid (GB10).

    Raises TaskError when files are missing and cannot be downloaded, or hold something else.
    """
    given = Path(options.file).expanduser() if options.file else files.prepared("cifar10")
    if given is None:
        return cached(cache, "cifar10", VERSION, MD5, lambda: _downloaded(cache))
    file = _find(given)
    if file.suffix == ".npz":
        digest = files.sha256("cifar10", file)
        return cached(cache, "cifar10", VERSION, digest, lambda: _data(_subset(file), f"file {file}", False))
    # A key as of the download, so that one prepared data set serves both; of batches it is their own.
    if file.name == ARCHIVE:
        return cached(cache, "cifar10", VERSION, MD5, lambda: _archive(file, f"file {file}"))
    digest = " ".join(files.sha256("cifar10", file / batch) for batch in BATCHES)
    return cached(cache, "cifar10", VERSION, digest, lambda: _batches(file))


def _find(place: Path) -> Path:
    """Return what is there: the archive, the folder of batches, or the one .npz."""
    if place.is_file() and (place.suffix == ".npz" or place.name == ARCHIVE):
        return place
    for folder in (place, place / "cifar-10-batches-bin"):
        if all((folder / batch).is_file() for batch in BATCHES):
            return folder
    if (place / ARCHIVE).is_file():
        return place / ARCHIVE
    subsets = sorted(place.glob("*.npz"))
    if len(subsets) != 1:
        raise TaskError(
            f"task cifar10: {place} holds neither {ARCHIVE} nor {BATCHES[0]} to {BATCHES[-1]} nor one .npz "
            "(the version for Python is not read)"
        )
    return subsets[0]


def _downloaded(cache: Path) -> Data:
    folder = cache / "downloads" / "cifar10"
    advice = f"put {ARCHIVE} into a folder cifar10 and set MUSWEEP_DATA to the folder that holds it"
    source = files.download("cifar10", SOURCES, {ARCHIVE: f"md5:{MD5}"}, folder, advice)
    return _archive(folder / ARCHIVE, f"downloaded from {source}")


def _archive(file: Path, origin: str) -> Data:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != MD5:
        raise TaskError(f"task cifar10: {file} is not the original (md5 {found}, expected {MD5}); download it again")

    def contents() -> Iterator[bytes]:
        with tarfile.open(file) as archive:
            for batch in BATCHES:
                member = archive.extractfile(f"cifar-10-batches-bin/{batch}")
                assert member is not None
                yield member.read()

    return _data([_parse(content, str(file)) for content in contents()], origin, True)


def _batches(folder: Path) -> Data:
    return _data(
        [_parse((folder / batch).read_bytes(), str(folder / batch)) for batch in BATCHES], f"folder {folder}", True
    )


def _parse(content: bytes, name: str) -> Part:
    """Read a batch: for each image a byte for the class, then the pixels."""
    if len(content) != EACH * (1 + _PIXELS):
        raise TaskError(f"task cifar10: {name} has {len(content)} bytes, expected {EACH * (1 + _PIXELS)}")
    table = np.frombuffer(content, np.uint8).reshape(EACH, 1 + _PIXELS)
    return table[:, 1:], table[:, 0]


def _subset(file: Path) -> list[Part]:
    """Read an .npz of images [N, 32, 32, 3] and classes, train and test."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    arrays = files.npz("cifar10", file, keys)
    parts = []
    for images, classes in ((arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])):
        labels = classes.reshape(-1)
        if images.shape != (len(labels), 32, 32, 3) or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise TaskError(
                f"task cifar10: {file}: images {images.shape} {images.dtype} with classes {classes.shape} "
                f"{classes.dtype}; expected [N, 32, 32, 3] uint8 and whole numbers [N]"
            )
        parts.append((images.transpose(0, 3, 1, 2).reshape(len(labels), _PIXELS), labels))
    return parts


def _data(parts: list[Part], origin: str, whole: bool) -> Data:
    """Put parts together, the last one being test; `whole` ones are CIFAR-10 if its classes are as many each."""
    classes = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    test = len(parts[-1][1])
    if len(classes) - test < 2 or not test or classes.min() < 0 or classes.max() >= _CLASSES:
        raise TaskError(f"task cifar10: {origin}: expected images in classes 0 to {_CLASSES - 1}, train and test")
    counts = (len(classes) - test, 0, test)
    same = whole and all(
        (np.bincount(some, minlength=_CLASSES) == len(some) // _CLASSES).all()
        for some in (classes[:-test], classes[-test:])
    )
    source = f"CIFAR-10, {origin}"
    if not same:
        source = f"a subset of CIFAR-10 or other data in its format, {origin}: results on it are not CIFAR-10 results"
    inputs = np.concatenate([pixels for pixels, _ in parts]).astype(np.float32)
    inputs /= 255
    return Data(inputs, classes, counts, source, not same)
