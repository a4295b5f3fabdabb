"""CIFAR-10: its binary format and archive on small files, subsets labelled as such, the real subset's images."""

import hashlib
import tarfile

import numpy as np
import pytest

from trainers.tasks import TaskError, cifar10, load


@pytest.fixture
def small(monkeypatch):
    """Batches of 20 images instead of 10,000."""
    monkeypatch.setattr(cifar10, "EACH", 20)


def write_batches(folder, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images = rng.integers(256, size=(6, 20, 3072)).astype(np.uint8)
    classes = np.stack([rng.permutation(np.arange(20) % 10) for _ in range(6)]).astype(np.uint8)
    for name, pixels, labels in zip(cifar10.BATCHES, images, classes, strict=True):
        (folder / name).write_bytes(np.column_stack([labels, pixels]).tobytes())
    return images.reshape(-1, 3072), classes.reshape(-1)


def write_archive(folder, monkeypatch):
    content = write_batches(folder / "cifar-10-batches-bin")
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / cifar10.ARCHIVE, "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    for batch in (folder / "cifar-10-batches-bin").iterdir():
        batch.unlink()
    digest = hashlib.md5((folder / cifar10.ARCHIVE).read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar10, "MD5", digest)
    return content


def expect(task, images, classes, valid):
    pixels = images / np.float32(255)
    train = 100 - valid
    for part, rows in ((task.train, slice(0, train)), (task.valid, slice(train, 100)), (task.test, slice(100, 120))):
        np.testing.assert_array_equal(part.inputs, pixels[rows])
        np.testing.assert_array_equal(part.targets, classes[rows])
        assert part.targets.dtype == np.int64


@pytest.mark.usefixtures("small")
def test_batches_and_the_archive_of_them_give_the_same_task(tmp_path, monkeypatch):
    images, classes = write_batches(tmp_path / "own")
    task = load("cifar10", {"file": str(tmp_path / "own"), "holdout": 20}, tmp_path)
    expect(task, images, classes, 20)
    assert not task.look_alike
    write_archive(tmp_path / "data" / "cifar10", monkeypatch)
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path / "data"))
    packed = load("cifar10", {"holdout": 20}, tmp_path)
    expect(packed, images, classes, 20)
    assert cifar10.ARCHIVE in packed.source


@pytest.mark.usefixtures("small")
def test_a_changed_archive_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    write_archive(tmp_path / "cifar10", monkeypatch)
    monkeypatch.setattr(cifar10, "MD5", "0" * 32)
    with pytest.raises(TaskError, match=r"is not the original \(md5"):
        load("cifar10", {"file": str(tmp_path / "cifar10")}, tmp_path)


@pytest.mark.usefixtures("small")
def test_batches_of_unequal_classes_are_not_called_cifar10(tmp_path):
    write_batches(tmp_path / "own")
    batch = tmp_path / "own" / cifar10.BATCHES[0]
    content = bytearray(batch.read_bytes())
    content[0] = (content[0] + 1) % 10
    batch.write_bytes(content)
    task = load("cifar10", {"file": str(tmp_path / "own")}, tmp_path)
    assert task.look_alike
    assert "not CIFAR-10 results" in task.source
    content[0] = 10
    batch.write_bytes(content)
    with pytest.raises(TaskError, match="classes 0 to 9"):
        load("cifar10", {"file": str(tmp_path / "own")}, tmp_path)


def test_a_subset_is_labelled_and_laid_out_as_the_binary_version(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(256, size=(30, 32, 32, 3)).astype(np.uint8), "y_train": np.arange(30)[:, None] % 10,
        "x_test": rng.integers(256, size=(10, 32, 32, 3)).astype(np.uint8), "y_test": np.arange(10),
    }  # fmt: skip
    np.savez(tmp_path / "some.npz", **arrays)
    task = load("cifar10", {"file": str(tmp_path / "some.npz"), "holdout": 0}, tmp_path)
    red_green_blue = task.train.inputs[7].reshape(3, 32, 32)
    np.testing.assert_array_equal(red_green_blue[1], arrays["x_train"][7, :, :, 1] / np.float32(255))
    np.testing.assert_array_equal(task.test.targets, np.arange(10))
    assert task.look_alike
    assert "subset" in task.source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((4, 3072), np.uint8)}, "expected .N, 32, 32, 3. uint8"),
        ({"y_test": np.zeros(2)}, "whole numbers"),
        ({"y_test": np.array([3, 10])}, "classes 0 to 9"),
        ({"x_train": np.array([{}])}, "is no .npz file of numbers"),
    ],
)
def test_an_odd_subset_is_refused_in_one_line(tmp_path, change, message):
    images, classes = np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, int)
    arrays = {"x_train": images, "y_train": classes, "x_test": images, "y_test": classes} | change
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(TaskError, match=message) as caught:
        load("cifar10", {"file": str(tmp_path / "some.npz")}, tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_cut_short_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"holds neither cifar-10-binary\.tar\.gz"):
        load("cifar10", {"file": str(tmp_path)}, tmp_path)
    for name in cifar10.BATCHES:
        (tmp_path / name).write_bytes(b"short")
    with pytest.raises(TaskError, match="has 5 bytes, expected 30730000"):
        load("cifar10", {"file": str(tmp_path)}, tmp_path)
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3))
    with pytest.raises(TaskError, match="has no y_train"):
        load("cifar10", {"file": str(tmp_path / "a.npz")}, tmp_path)
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(TaskError, match=r"is no \.npz file"):
        load("cifar10", {"file": str(tmp_path / "b.npz")}, tmp_path)


def test_without_data_or_network_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    def offline(url, known_hash, fname, path):
        assert url.endswith("/cifar-10-binary.tar.gz")
        assert known_hash == "md5:c32a1d4ab5d03f1284b67883e8d87530"
        raise ConnectionError("no route")

    monkeypatch.setattr("pooch.retrieve", offline)
    monkeypatch.delenv("MUSWEEP_DATA", raising=False)
    with pytest.raises(TaskError, match=r"put cifar-10-binary\.tar\.gz into a folder cifar10 and set MUSWEEP_DATA"):
        load("cifar10", {}, tmp_path)


def test_the_real_subset_has_the_original_classes_and_is_no_noise(data_folder, require, tmp_path):
    require((data_folder / "cifar10").is_dir(), f"{data_folder} has no folder cifar10")
    task = load("cifar10", {"file": str(data_folder / "cifar10"), "holdout": 400}, tmp_path)
    assert [len(part) for part in (task.train, task.valid, task.test)] == [3600, 400, 1000]
    assert task.look_alike
    assert (task.train.targets[:5].tolist(), task.test.targets[:4].tolist()) == ([6, 9, 9, 4, 1], [3, 8, 8, 0])
    images = task.test.inputs[:100].reshape(100, 3, 32, 32)
    shuffled = np.random.default_rng(0).permuted(images, axis=3)
    assert abs(np.diff(images)).mean() < 0.6 * abs(np.diff(shuffled)).mean()  # neighbours are alike
