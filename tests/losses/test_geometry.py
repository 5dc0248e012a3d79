"""Directions are NumPy's at any scale, and a vector without one gives neither NaN nor a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdx.losses.geometry import deviation, unit

TINY_TO_HUGE = (1e-30, 1e-12, 1.0, 1e12, 1e30)


@pytest.mark.parametrize("scale", TINY_TO_HUGE)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_unit_divides_by_the_length(dim: int, scale: float) -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 5))
    expected = vectors / np.linalg.norm(vectors, axis=dim, keepdims=True)
    np.testing.assert_allclose(unit(torch.from_numpy(vectors * scale), dim).numpy(), expected, rtol=1e-12)
    single = unit(torch.from_numpy(vectors * scale).float(), dim)
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", TINY_TO_HUGE)
def test_the_product_of_deviations_is_pearsons_correlation(scale: float) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 4, 50))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        a, b = (deviation(torch.from_numpy(z * scale + 3 * scale).to(dtype)) for z in (x, y))
        np.testing.assert_allclose((a * b).sum(-1).numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_in_single_precision(dtype: torch.dtype) -> None:
    vectors = torch.randn(3, 8).to(dtype) * 1000
    assert unit(vectors).dtype == torch.float32
    assert torch.equal(unit(vectors), unit(vectors.float()))


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_a_zero_vector_stays_zero_and_gets_no_gradient(value: float) -> None:
    vectors = torch.tensor([[value, value], [3.0, 4.0]], requires_grad=True)
    result = unit(vectors)
    assert result.tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]
    (gradient,) = torch.autograd.grad(result[:, 0].sum(), vectors)
    assert gradient[0].eq(0).all() and gradient[1].ne(0).any() and gradient.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-20, 12345.678])
def test_constants_have_no_deviation_even_if_their_mean_is_rounded(value: float) -> None:
    values = torch.full((1, 1001), value, requires_grad=True)
    result = deviation(values)
    assert result.eq(0).all()
    assert torch.autograd.grad(result.square().sum(), values)[0].eq(0).all()


def test_gradients_are_the_numerical_ones() -> None:
    vectors = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, [vectors])
    assert torch.autograd.gradcheck(deviation, [vectors])
