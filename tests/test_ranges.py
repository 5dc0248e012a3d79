"""Ranges in a signature are enforced, and say what was wrong."""

import inspect
from typing import Any

import pytest

from kdx.ranges import Count, Finite, Fraction, NonNegative, Number, Positive, Resolution, validated

NAN, INF = float("nan"), float("inf")


@validated
class Holder:
    """Holds one number of each kind."""

    def __init__(
        self,
        positive: Positive = 1.0,
        non_negative: NonNegative = 0.0,
        finite: Finite = 0.0,
        fraction: Fraction = 0.0,
        count: Count = 1,
        number: Number = 0,
        resolution: Resolution = 32,
    ) -> None:
        if finite == 13:
            raise ValueError("no thirteen here")
        self.values = (positive, non_negative, finite, fraction, count, number, resolution)


REJECTED = {
    "positive": (0, -1, NAN, INF, "four", None),
    "non_negative": (-1e-9, NAN, INF),
    "finite": (NAN, INF, -INF),
    "fraction": (-0.01, 1.01, NAN),
    "count": (0, -1, 1.5, "many"),
    "number": (-1, 0.5),
    "resolution": (3, 4097),
}
ACCEPTED = {
    "positive": (1e-9, 4),
    "non_negative": (0, 3.5),
    "finite": (-1e9, 0),
    "fraction": (0, 1),
    "count": (1,),
    "number": (0,),
    "resolution": (4, 4096),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REJECTED.items() for value in values])
def test_a_number_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Holder: {name}: .*got {value!r}"):
        Holder(**{name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ACCEPTED.items() for value in values])
def test_the_ends_of_a_range_belong_to_it(name: str, value: Any) -> None:
    assert value in Holder(**{name: value}).values


def test_positional_arguments_are_checked_too() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Holder(-1)


def test_an_unknown_argument_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Holder: typo"):
        Holder(typo=1)


def test_an_error_of_the_constructor_itself_comes_through_unchanged() -> None:
    with pytest.raises(ValueError, match=r"^no thirteen here$"):
        Holder(finite=13)


def test_a_subclass_inherits_the_checks() -> None:
    class Child(Holder):
        def __init__(self, positive: float) -> None:
            super().__init__(positive)

    with pytest.raises(ValueError, match="greater than 0"):
        Child(0)


def test_the_signature_stays_readable() -> None:
    parameters = inspect.signature(Holder).parameters
    assert list(parameters) == list(REJECTED) and parameters["positive"].default == 1.0
