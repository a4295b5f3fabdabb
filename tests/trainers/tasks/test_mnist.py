"""MNIST: the idx format on small files, the real data against a published number."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers import data, models
from trainers.config import NetConfig
from trainers.metrics import measure
from trainers.tasks import TaskError, load, mnist

PCA_30_TEST = 13.87  # H&S 2006; 13.866 measured (SCIENCE 4.1)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_small(folder: Path, train: int = 30, test: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(train)
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for part, count in (("train", train), ("t10k", test)):
        content[f"{part}-images"] = rng.integers(256, size=(count, 28, 28)).astype(np.uint8)
        content[f"{part}-labels"] = rng.integers(10, size=count).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", content[f"{part}-images"])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", content[f"{part}-labels"])
    return content


def test_a_folder_gives_pixels_over_255_classes_and_the_last_train_images_as_valid(tmp_path):
    content = write_small(tmp_path / "own")
    task = load("mnist", {"file": str(tmp_path / "own"), "holdout": 10}, tmp_path)
    images = content["train-images"].reshape(30, 784) / np.float32(255)
    np.testing.assert_array_equal(task.train.inputs, images[:20])
    np.testing.assert_array_equal(task.valid.inputs, images[20:])
    np.testing.assert_array_equal(task.test.inputs, content["t10k-images"].reshape(8, 784) / np.float32(255))
    np.testing.assert_array_equal(task.train.targets, content["train-labels"][:20])
    np.testing.assert_array_equal(task.valid.targets, content["train-labels"][20:])
    np.testing.assert_array_equal(task.test.targets, content["t10k-labels"])
    assert task.train.targets.dtype == np.int64
    assert task.look_alike  # not the original bytes
    assert "not its files" in task.source


def test_the_autoencoder_has_the_same_images_in_the_same_cache_file_and_they_are_its_targets(tmp_path):
    write_small(tmp_path / "own")
    options = {"file": str(tmp_path / "own"), "holdout": 10}
    classes, images = load("mnist", options, tmp_path), load("mnist-ae", options, tmp_path)
    np.testing.assert_array_equal(classes.train.inputs, images.train.inputs)
    assert images.train.targets is images.train.inputs
    assert len(list(tmp_path.glob("tasks/*.arrow"))) == 1


def test_holdout_0_trains_on_everything_and_says_so(tmp_path):
    write_small(tmp_path / "own")
    task = load("mnist-ae", {"file": str(tmp_path / "own"), "holdout": 0}, tmp_path)
    assert len(task.train) == 30
    assert len(task.test) == 8
    assert not task.held_out
    assert "repeats" in task.source
    with pytest.raises(TaskError, match="holdout=30: must leave some of 30"):
        load("mnist-ae", {"file": str(tmp_path / "own"), "holdout": 30}, tmp_path)


def test_examples_keeps_the_first_ones_and_the_same_valid(tmp_path):
    content = write_small(tmp_path / "own")
    task = load("mnist", {"file": str(tmp_path / "own"), "examples": 5, "holdout": 10}, tmp_path)
    np.testing.assert_array_equal(task.train.targets, content["train-labels"][:5])
    np.testing.assert_array_equal(task.valid.targets, content["train-labels"][20:])
    with pytest.raises(TaskError, match="examples=21: there are 20 to train on"):
        load("mnist", {"file": str(tmp_path / "own"), "examples": 21, "holdout": 10}, tmp_path)


def test_missing_files_are_named(tmp_path):
    write_small(tmp_path / "own")
    (tmp_path / "own" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(TaskError, match=r"own lacks t10k-labels-idx1-ubyte\.gz"):
        load("mnist", {"file": str(tmp_path / "own")}, tmp_path)


def test_other_files_in_the_data_folder_are_refused_as_mnist(tmp_path, monkeypatch):
    write_small(tmp_path / "mnist")
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"train-images-idx3-ubyte\.gz is not the original"):
        load("mnist", {}, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "noise", "kind", "sizes", "counts", "labels"])
def test_damaged_files_are_refused_in_one_line(tmp_path, damage):
    folder = tmp_path / "own"
    write_small(folder)
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
    if damage == "cut":
        images.write_bytes(images.read_bytes()[:-100])
    elif damage == "noise":
        images.write_bytes(b"no gzip")
    elif damage == "kind":
        images.write_bytes(labels.read_bytes())
    elif damage == "sizes":
        images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:-1]))
    elif damage == "counts":
        write_idx(labels, np.zeros(29, np.uint8))
    else:
        write_idx(labels, np.full(30, 10, np.uint8))
    with pytest.raises(TaskError, match="task mnist: ") as caught:
        load("mnist", {"file": str(folder)}, tmp_path)
    assert "\n" not in str(caught.value)


def test_without_data_or_network_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    asked = []

    def offline(url, known_hash, fname, path):
        asked.append(url)
        raise ConnectionError("no route")

    monkeypatch.delenv("MUSWEEP_DATA", raising=False)
    monkeypatch.setattr("pooch.retrieve", offline)
    with pytest.raises(TaskError, match="MUSWEEP_DATA") as caught:
        load("mnist-ae", {}, tmp_path)
    assert all(name in str(caught.value) for name in mnist.FILES)
    assert "\n" not in str(caught.value)
    assert [url.rsplit("/", 1)[0] + "/" for url in asked] == list(mnist.MIRRORS)


def test_a_download_is_asked_for_by_hash_and_cached(tmp_path, monkeypatch):
    hashes = {}

    def online(url, known_hash, fname, path):
        if url.startswith(mnist.MIRRORS[0]):
            raise ValueError("the hash of this mirror's file is another")
        hashes[fname] = known_hash.removeprefix("sha256:")
        write_small(path)

    monkeypatch.delenv("MUSWEEP_DATA", raising=False)
    monkeypatch.setattr("pooch.retrieve", online)
    task = load("mnist", {}, tmp_path)
    assert hashes == mnist.FILES
    assert task.source == f"MNIST, downloaded from {mnist.MIRRORS[1]}"
    assert not task.look_alike
    monkeypatch.setattr("pooch.retrieve", None)
    assert len(load("mnist", {}, tmp_path).test) == 8


@pytest.fixture
def real(data_folder, require, monkeypatch):
    require((data_folder / "mnist").is_dir(), f"{data_folder} has no folder mnist")
    monkeypatch.setenv("MUSWEEP_DATA", str(data_folder))


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_pca_30_of_the_real_data_gives_the_published_test_error(session_cache):
    task = load("mnist-ae", {"holdout": 0}, session_cache)
    assert not task.look_alike
    train = task.train.inputs
    assert len(train) == 60_000
    mean = train.mean(0, dtype=np.float64)
    covariance = np.zeros((784, 784))
    for start in range(0, len(train), 10_000):
        some = train[start : start + 10_000] - mean
        covariance += some.T @ some
    components = np.linalg.eigh(covariance)[1][:, -30:]
    # The components as a linear autoencoder, and the metric that sweeps report.
    net = NetConfig((784, 30, 784), ("linear",), "squared")
    module = models.build(net, torch.float64)
    weights = [(components, -mean @ components), (components.T, mean)]
    models.set_parameters(module, [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in weights])
    unseen = data.part(task.test, 784, torch.device("cpu"), torch.float64)
    error = float(measure(task.info, net, module(*unseen.arguments()), unseen)["squared_error"])
    assert error == pytest.approx(13.866, abs=0.01)
    assert error == pytest.approx(PCA_30_TEST, abs=0.005)
    assert np.trace(covariance) / len(train) == pytest.approx(52.725, abs=0.001)  # mean image, train


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_the_real_data_split_as_gb10_for_classes_and_hold_out_5000_for_the_autoencoder(session_cache):
    classes, images = load("mnist", {}, session_cache), load("mnist-ae", {}, session_cache)
    assert [len(part) for part in (classes.train, classes.valid, classes.test)] == [50_000, 10_000, 10_000]
    assert [len(part) for part in (images.train, images.valid, images.test)] == [55_000, 5_000, 10_000]
    counts = np.bincount(classes.test.targets)
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
