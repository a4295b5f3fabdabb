"""Small-ImageNet: folders of images as classes, grey middle squares, odd files named."""

import numpy as np
import pytest
from PIL import Image

from trainers.tasks import TaskError, info, load

NAME = "small-imagenet"


def write(folder, classes=3, each=11):
    """Images of one grey, by class and number, in several sizes and formats."""
    for group in range(classes):
        (folder / f"class {group}").mkdir(parents=True)
        for n in range(each):
            size = [(37, 37), (74, 50), (40, 90)][n % 3]
            kind = ["png", "jpg", "bmp"][n % 3]
            Image.new("RGB", size, (10 * group + n,) * 3).save(folder / f"class {group}" / f"{n:02}.{kind}")
    return folder


def test_each_image_is_in_one_part_with_its_class(tmp_path):
    folder = write(tmp_path / "images")
    task = load(NAME, {"file": str(folder), "classes": 3}, tmp_path)
    parts = (task.train, task.valid, task.test)
    assert [len(part) for part in parts] == [27, 3, 3]
    pixels = np.concatenate([part.inputs for part in parts])
    classes = np.concatenate([part.targets for part in parts])
    assert pixels.shape == (33, 37 * 37)
    assert pixels.dtype == np.float32
    assert np.ptp(pixels, axis=1).max() < 1e-6
    greys = np.round(255 * pixels[:, 0]).astype(int)
    assert sorted(zip(classes, greys, strict=True)) == sorted((c, 10 * c + n) for c in range(3) for n in range(11))
    assert (task.info.inputs, task.info.outputs) == (1369, 3)
    assert task.look_alike
    other = load(NAME, {"file": str(folder), "classes": 3, "seed": 1}, tmp_path)
    assert not np.array_equal(other.train.inputs, task.train.inputs)


def test_the_middle_square_is_averaged_down_to_37_pixels(tmp_path):
    folder = write(tmp_path / "images", 2, 10)
    wide = np.random.default_rng(0).integers(256, size=(74, 100)).astype(np.uint8)
    Image.fromarray(wide).save(folder / "class 1" / "x.png")
    task = load(NAME, {"file": str(folder), "classes": 2}, tmp_path)
    expected = wide[:, 13:87].reshape(37, 2, 37, 2).mean((1, 3)).ravel() / 255
    every = np.concatenate([part.inputs for part in (task.train, task.valid, task.test)])
    assert abs(every - expected).max(1).min() < 1.01 / 255


def test_the_data_folder_is_looked_in_and_changed_images_are_read_again(tmp_path, monkeypatch):
    folder = write(tmp_path / NAME, 10, 2)
    monkeypatch.setenv("MUSWEEP_DATA", str(tmp_path))
    assert len(load(NAME, {}, tmp_path / "cache").train) == 18
    Image.new("L", (9, 9), 255).save(folder / "class 4" / "new.png")
    (folder / "class 4" / ".DS_Store").write_bytes(b"no image")
    (folder / ".hidden").mkdir()
    again = load(NAME, {}, tmp_path / "cache")
    assert len(again.train) == 19
    assert max(part.inputs.max() for part in (again.train, again.valid, again.test)) == 1
    assert info(NAME).outputs == 10


def test_odd_folders_and_files_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("MUSWEEP_DATA", raising=False)

    def message(options):
        with pytest.raises(TaskError) as caught:
            load(NAME, options, tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "set MUSWEEP_DATA to a folder that holds it as small-imagenet" in message({})
    assert "No such file" in message({"file": str(tmp_path / "absent")})
    folder = write(tmp_path / "images")
    assert "has 3 folders, expected one for each of 10 classes" in message({"file": str(folder)})
    (folder / "class 2" / "notes.txt").write_text("none")
    assert "notes.txt: no image that can be read; remove" in message({"file": str(folder), "classes": 3})
    (folder / "class 2" / "notes.txt").unlink()
    whole = (folder / "class 0" / "03.png").read_bytes()
    (folder / "class 0" / "03.png").write_bytes(whole[: len(whole) // 2])
    assert "03.png: " in message({"file": str(folder), "classes": 3})
    (folder / "empty").mkdir()
    assert "empty holds no images" in message({"file": str(folder), "classes": 4})
    assert "11 or more make three parts" in message({"file": str(write(tmp_path / "few", 2, 2)), "classes": 2})
