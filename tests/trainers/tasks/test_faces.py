"""FACES: the recipe's look-alike against its published marks, people apart, and the user's own file."""

import numpy as np
import pytest
from scipy.io import savemat

from trainers.tasks import TaskError, faces, load

PCA_30 = 135  # H&S 2006, test error per patch


@pytest.fixture
def real(data_folder, require, monkeypatch):
    require((data_folder / "olivetti").is_dir(), f"{data_folder} has no folder olivetti")
    monkeypatch.setenv("MUSWEEP_DATA", str(data_folder))


def write_faces(folder, seed=0):
    """A file in the format of the real one: each face another slope, so that turns can be told apart."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.default_rng(seed).integers(256, size=(4096, 400)).astype(np.uint8)
    savemat(folder / "olivettifaces.mat", {"faces": table})
    return table


def pca_30(train, test):
    mean = train.mean(0, dtype=np.float64).astype(np.float32)
    centred, unseen = train - mean, test - mean
    components = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, -30:].astype(np.float32)
    return np.square(unseen).sum(1).mean() - np.square(unseen @ components).sum(1).mean()


@pytest.mark.usefixtures("real")
def test_the_mean_predictor_scores_625_and_30_components_the_published_error(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "PATCHES", 12)
    task = load("faces", {}, tmp_path)
    parts = (task.train, task.valid, task.test)
    assert [len(part) for part in parts] == [3_000, 600, 1_200]
    everything = np.concatenate([part.inputs for part in parts]).astype(np.float64)
    assert np.square(everything).sum(1).mean() == pytest.approx(625, rel=1e-5)
    assert abs(everything.mean(0)).max() < 1e-5
    assert pca_30(task.train.inputs, task.test.inputs) == pytest.approx(PCA_30, rel=0.1)
    assert task.look_alike
    assert "look-alike" in task.source
    assert task.train.targets is task.train.inputs
    assert task.train.inputs.dtype == np.float32


def test_the_full_set_has_the_papers_sizes():
    assert [faces.PATCHES * 10 * people for people in faces.PEOPLE] == [103_500, 20_700, 41_400]


def test_a_patch_is_the_smoothed_face_read_along_a_turned_grid_around_its_middle():
    from scipy.ndimage import gaussian_filter, map_coordinates

    some = np.random.default_rng(1).random((3, 64, 64)).astype(np.float32)
    found = faces.cut(some, 2, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    angles, scales = np.deg2rad(rng.uniform(-90, 90, 6)), rng.uniform(1.4, 1.8, 6)
    for n, (patch, angle, scale) in enumerate(zip(found.reshape(-1, 25, 25), angles, scales, strict=True)):
        turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        grid = np.mgrid[:25, :25].reshape(2, -1) - 12
        smooth = gaussian_filter(some[n % 3].astype(np.float64), 0.45)
        expected = map_coordinates(smooth, 31.5 + turn @ grid, order=1)
        np.testing.assert_allclose(patch.ravel(), expected, atol=2e-5)


def test_no_patch_reaches_over_the_edge_of_its_face():
    # Bilinear reading at p needs pixels floor(p) and floor(p) + 1 of 0 to 63.
    assert 31.5 + 12 * np.sqrt(2) * 1.8 < 63


def test_no_person_is_in_two_parts_and_the_first_examples_show_all_people(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "PATCHES", 3)
    table = np.repeat(np.arange(40, dtype=np.uint8), 10) * np.ones((4096, 1), np.uint8)  # a person's grey is its number
    (tmp_path / "olivetti").mkdir()
    savemat(tmp_path / "olivetti" / "olivettifaces.mat", {"faces": table})
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path))
    task = load("faces", {"examples": 250}, tmp_path / "cache")
    levels = np.sort(
        np.unique(np.round(np.concatenate([p.inputs[:, 0] for p in (task.train, task.valid, task.test)]), 4))
    )
    assert len(levels) == 40
    assert len(np.unique(np.round(task.train.inputs[:, 0], 4))) == 25
    assert task.train.inputs.max() < task.valid.inputs.min()
    assert task.valid.inputs.max() < task.test.inputs.min()


def test_a_seed_gives_the_same_patches_and_another_seed_others(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "PATCHES", 1)
    write_faces(tmp_path / "olivetti")
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path))
    first, again, other = (
        load("faces", {"seed": seed}, tmp_path / name).train.inputs for seed, name in [(0, "a"), (0, "b"), (1, "a")]
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_original_file_keeps_its_values_and_the_papers_split(tmp_path):
    table = np.random.default_rng(0).normal(size=(625, 80)).astype(np.float32)
    savemat(tmp_path / "own.mat", {"newfaces_single": table})
    task = load("faces", {"file": str(tmp_path / "own.mat")}, tmp_path)
    np.testing.assert_array_equal(task.train.inputs, table.T[:50])
    np.testing.assert_array_equal(task.valid.inputs, table.T[50:60])
    np.testing.assert_array_equal(task.test.inputs, table.T[60:])
    assert not task.look_alike
    assert "own.mat" in task.source


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"faces": np.zeros((625, 40))}, "has no newfaces_single"),
        ({"newfaces_single": np.zeros((40, 625))}, r"is \(40, 625\), expected 625 rows"),
        ({"newfaces_single": np.zeros((625, 41))}, r"is \(625, 41\), expected 625 rows"),
        ({"newfaces_single": np.full((625, 40), np.nan)}, "not finite"),
    ],
)
def test_a_file_with_something_else_is_refused_in_one_line(tmp_path, content, message):
    savemat(tmp_path / "own.mat", content)
    with pytest.raises(TaskError, match=message) as caught:
        load("faces", {"file": str(tmp_path / "own.mat")}, tmp_path)
    assert "\n" not in str(caught.value)


def test_without_faces_or_network_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    def offline(url, known_hash, fname, path):
        assert known_hash.startswith("sha256:")
        raise ConnectionError("no route")

    monkeypatch.setattr("pooch.retrieve", offline)
    monkeypatch.delenv("MUSWEEP_DATA", raising=False)
    with pytest.raises(TaskError, match=r"put olivettifaces\.mat into a folder olivetti and set MUSWEEP_DATA"):
        load("faces", {}, tmp_path)
    (tmp_path / "olivetti").mkdir()
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"olivetti lacks olivettifaces\.mat"):
        load("faces", {}, tmp_path)
