"""Shapeset: the law of its generator (SCIENCE 10) by frequencies, areas and a slow fill; what makes it a task."""

import numpy as np
import pytest
from scipy.stats import chisquare

from trainers.tasks import TaskError, load, shapeset

PRIOR = np.array([3, 3, 3, 2, 2, 2, 1, 1, 1]) / 18  # T, Q, E, TQ, QE, TE, TT, QQ, EE


def drawn(count, size=32, seed=0):
    images, classes = shapeset.images(np.random.default_rng(seed), count, size)
    return images.reshape(-1, size, size), classes


def polygons(kind, count, seed=0, size=32):
    """Polygons of one kind at every rotation."""
    rng = np.random.default_rng(seed)
    most = 255 // shapeset.CORNERS[kind] // 2
    before, after = rng.integers(-most, most + 1, count), rng.integers(0, 254, count)
    return shapeset.placed(rng, np.full(count, kind), before, after, size)


def test_classes_have_the_derived_priors_where_nothing_is_rejected(monkeypatch):
    monkeypatch.setattr(shapeset, "_HIDDEN", np.inf)
    counts = np.bincount(drawn(9_000, size=8)[1], minlength=9)
    assert chisquare(counts, 9_000 * PRIOR).pvalue > 0.001


def test_few_images_lose_their_second_shape_for_want_of_room(monkeypatch):
    classes = drawn(9_000, size=20)[1]
    assert 0.5 <= (classes < 3).mean() + 3 * np.sqrt(0.25 / 9_000) < 0.53
    monkeypatch.setattr(shapeset, "_REJECTIONS", 0)
    assert (drawn(200)[1] < 3).all()


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_shape_fills_its_area_and_has_the_area_of_its_corners(kind):
    shape = polygons(kind, 4000)
    corners = shape.corners + shape.centre[:, None]
    x, y = corners[..., 0], corners[..., 1]
    shoelace = (x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1) / 2
    np.testing.assert_allclose(shape.area, shoelace, rtol=1e-9)
    n = shapeset.CORNERS[kind]
    # Two scales uniform on .2 to .8 of the side are 1/2 each in the mean.
    assert shape.area.mean() == pytest.approx(n * np.sin(2 * np.pi / n) / 8 * 16**2, rel=0.03)
    filled = shapeset.filled(corners, 32).sum((1, 2))
    assert filled.mean() == pytest.approx(shape.area.mean(), rel=0.003)
    assert abs(filled - shape.area).max() < 20  # the outline's


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_pixel_is_filled_where_its_centre_lies_to_the_left_of_every_edge(kind):
    shape = polygons(kind, 60, seed=3)
    corners = (shape.corners + shape.centre[:, None]).astype(np.float32).astype(np.float64)
    a, b = corners[:, None, None], np.roll(corners, -1, 1)[:, None, None]
    y, x = np.mgrid[:32, :32] + 0.5
    point = np.stack([x, y], 2)[None, :, :, None]
    side = (b - a)[..., 0] * (point - a)[..., 1] - (b - a)[..., 1] * (point - a)[..., 0]
    found = shapeset.filled(corners, 32)
    clear = abs(side).min(-1, where=abs(b - a).max(-1) > 1e-6, initial=np.inf) > 1e-3  # not on an edge
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], (side >= -1e-9).all(-1)[clear])


def test_a_square_fills_its_pixels():
    square = np.array([[[2.0, 3.0], [7.0, 3.0], [7.0, 5.0], [2.0, 5.0]]])
    expected = np.zeros((8, 8), bool)
    expected[3:5, 2:7] = True
    np.testing.assert_array_equal(shapeset.filled(square, 8)[0], expected)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_shapes_stay_a_pixel_inside_and_their_larger_side_is_between_the_scales(kind):
    shape = polygons(kind, 3000)
    corners = shape.corners + shape.centre[:, None]
    assert corners.min() >= 1
    assert corners.max() <= 31
    reach = np.sqrt(np.square(shape.corners).sum(2)).max(1)
    assert reach.min() >= 0.5 * 0.2 * 32 * np.cos(np.pi / shapeset.CORNERS[kind]) - 1e-9
    assert reach.max() <= 0.5 * 0.8 * 32 + 1e-9


def test_two_polygons_that_cannot_meet_hide_nothing_and_on_the_same_centre_all():
    old, new = polygons(2, 2000, seed=1), polygons(1, 2000, seed=2)
    share = shapeset.hidden(old, new)
    apart = np.sqrt(np.square(new.centre - old.centre).sum(1)) > 1.5 + sum(
        np.sqrt(np.square(some.corners).sum(2)).max(1) for some in (old, new)
    )
    assert apart.sum() > 20
    assert (share[apart] == 0).all()
    assert (share >= 0).all()
    there = shapeset.Polygons(new.corners, np.trunc(old.centre) + 1e-3, new.area)
    np.testing.assert_allclose(shapeset.hidden(old, there), new.area / old.area)
    half = shapeset.Polygons(np.ones((1, 20, 2)) * [[6, 0]], np.array([[4.0, 4.0]]), np.array([2.0]))
    other = shapeset.Polygons(np.ones((1, 20, 2)) * [[-2, 0]], np.array([[8.0, 4.0]]), np.array([3.0]))
    # Reaches 6 and 2 over a distance of 4: (1 - 1/2) times 3/2.
    np.testing.assert_allclose(shapeset.hidden(half, other), [0.75])


def test_shapes_are_brighter_than_their_ground_or_darker_by_even_chance():
    images, classes = drawn(3_000)
    greys = np.round((images + 1) * 127.5)
    assert (images.min(), images.max()) == (-1, 1)
    np.testing.assert_allclose(greys, (images + 1) * 127.5, atol=1e-3)
    ground = greys[:, 0, 0]
    assert abs((ground <= 114).mean() - 0.5) < 4 * np.sqrt(0.25 / 3_000)
    assert ((ground <= 114) | (ground >= 140)).all()
    singles = classes < 3
    for image, low in zip(greys, ground <= 114, strict=True):
        other = image[image != image[0, 0]]
        assert len(other)
        assert ((other >= 140) if low else (other <= 114)).all()
    assert max(len(np.unique(image)) for image in greys[singles]) == 2
    assert max(len(np.unique(image)) for image in greys[~singles]) == 3


def test_new_images_are_a_function_of_the_seeds_and_no_part_repeats_another(tmp_path):
    options = {"size": 12, "holdout": 300}
    task, other = (load("shapeset", {**options, "seed": seed}, tmp_path) for seed in (0, 1))
    assert task.draw is not None
    assert other.draw is not None
    first, again = task.draw(5, 700), load("shapeset", options, tmp_path / "b").draw(5, 700)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)
    parts = [first, task.draw(6, 700), other.draw(5, 700), other.train, task.train, task.valid, task.test]
    assert len({part.inputs[:50].tobytes() for part in parts}) == 7
    assert task.info.inputs == 144
    assert [len(part) for part in (task.train, task.valid, task.test)] == [5_000, 300, 300]
    assert (first.inputs.dtype, first.targets.dtype) == (np.float32, np.int64)
    assert task.look_alike
    assert "look-alike" in task.source


def test_with_examples_training_has_so_many_and_no_more(tmp_path):
    task = load("shapeset", {"size": 8, "examples": 120, "holdout": 30}, tmp_path)
    assert task.draw is None
    assert [len(part) for part in (task.train, task.valid, task.test)] == [120, 30, 30]
    with pytest.raises(TaskError, match="holdout=0: must be 1 or more"):
        load("shapeset", {"holdout": 0}, tmp_path)
