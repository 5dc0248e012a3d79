"""The digits are what their class says before anything is read."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdx.data.digits import Digits


def pixels() -> np.ndarray:
    images = Digits().splits()["train"]
    return np.stack([images[i] for i in range(len(images))])


def test_the_digits_are_scikit_learns_in_steps_of_a_sixteenth_of_white() -> None:
    found = pixels()
    assert found.shape == (1797, Digits.channels, 8, 8) and found.dtype == np.uint8
    assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_array_equal(np.round(found[:, 0] / 255 * 16), load_digits().images)


def test_the_labels_are_scikit_learns_and_there_are_as_many_classes_as_stated() -> None:
    labels = Digits().splits()["train"].labels
    np.testing.assert_array_equal(labels, load_digits().target)
    assert labels is not None and set(labels) == set(range(Digits.num_classes))


def test_mean_and_std_are_those_of_the_pixels() -> None:
    found = pixels() / 255
    assert Digits.mean == pytest.approx((found.mean(),), abs=1e-3)
    assert Digits.std == pytest.approx((found.std(),), abs=1e-3)
