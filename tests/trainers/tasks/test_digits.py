"""Digits: scikit-learn's images, each in exactly one part."""

import numpy as np
import pytest

from trainers.tasks import load


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_each_image_is_in_one_part_with_its_class(digits):
    from sklearn.datasets import load_digits

    inputs, classes = load_digits(return_X_y=True)
    parts = (digits.train, digits.valid, digits.test)
    assert [len(part) for part in parts] == [1097, 350, 350]

    def rows(images, targets):
        return sorted((*image, int(target)) for image, target in zip(images.tolist(), targets, strict=True))

    found = rows(np.concatenate([16 * part.inputs for part in parts]), np.concatenate([part.targets for part in parts]))
    assert found == rows(inputs, classes)


def test_inputs_are_in_0_1_and_every_part_has_all_classes_about_equally(digits):
    for part in (digits.train, digits.valid, digits.test):
        assert part.inputs.dtype == np.float32
        assert part.targets.dtype == np.int64
        assert part.inputs.min() == 0
        assert part.inputs.max() == 1
        counts = np.bincount(part.targets, minlength=10)
        expected = len(part) / 10
        assert (abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_the_order_is_a_function_of_the_seed(digits, tmp_path):
    again, other = load("digits", {}, tmp_path), load("digits", {"seed": 1}, tmp_path)
    np.testing.assert_array_equal(digits.valid.inputs, again.valid.inputs)
    np.testing.assert_array_equal(digits.test.targets, again.test.targets)
    assert not np.array_equal(digits.test.inputs, other.test.inputs)


def test_it_is_the_real_thing(digits):
    assert not digits.look_alike
    assert digits.held_out
    assert digits.info.name == "digits"
    assert "scikit-learn" in digits.source
