"""Features of all layouts meet at the same positions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdx.losses import projectors
from kdx.losses.projectors import aligned, channels, grid, linear, positions


@pytest.mark.parametrize(("shape", "count"), [((64,), 64), ((64, 8, 4), 64), ((197, 192), 192)])
def test_channels_of_each_layout(shape: tuple[int, ...], count: int) -> None:
    assert channels(torch.Size(shape)) == count
    assert positions(torch.zeros(2, *shape)).shape[-1] == count


def test_positions_of_a_map_are_read_row_by_row() -> None:
    feature = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4).float()
    found = positions(feature)
    assert found.shape == (2, 8, 3)
    assert torch.equal(found[1, 5], feature[1, :, 1, 1])


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_tokens_form_a_square_without_those_in_front(prefix: int) -> None:
    image = torch.randn(2, 6, 14, 14)
    tokens = torch.cat([torch.randn(2, prefix, 6), positions(image)], 1)
    assert torch.equal(grid(tokens), image)


def test_tokens_that_form_no_square_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"193 tokens do not form a square.*pooled"):
        grid(torch.zeros(2, 193, 8))


@pytest.mark.parametrize(("student", "teacher"), [((8, 8), (4, 4)), ((4, 4), (8, 8)), ((5, 7), (3, 9)), ((6, 6), (6, 6))])
def test_the_larger_map_is_averaged_to_the_smaller_side_by_side(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *student), torch.randn(2, 5, *teacher)
    size = (min(student[0], teacher[0]), min(student[1], teacher[1]))
    for found, feature in zip(aligned(*maps), maps, strict=True):
        torch.testing.assert_close(found, F.adaptive_avg_pool2d(feature, size).flatten(2).transpose(1, 2))


def test_tokens_meet_a_map_on_its_grid_and_equal_numbers_of_tokens_meet_as_they_are() -> None:
    tokens, image = torch.randn(2, 197, 6), torch.randn(2, 3, 7, 7)
    student, teacher = aligned(image, tokens)
    assert torch.equal(student, positions(image))
    torch.testing.assert_close(teacher, positions(F.avg_pool2d(grid(tokens), 2)))
    assert all(torch.equal(a, b) for a, b in zip(aligned(tokens, tokens + 1), (tokens, tokens + 1), strict=True))
    fewer = torch.randn(2, 50, 6)
    assert [found.shape for found in aligned(fewer, tokens)] == [(2, 49, 6), (2, 49, 6)]


def test_a_pooled_feature_meets_the_mean_of_a_map() -> None:
    pooled, image = torch.randn(2, 6), torch.randn(2, 3, 4, 4)
    assert torch.equal(aligned(pooled, image)[0], pooled[:, None])
    torch.testing.assert_close(aligned(pooled, image)[1], image.mean((2, 3))[:, None])


def test_a_linear_map_at_each_position_is_a_convolution_of_size_1() -> None:
    feature = torch.randn(2, 3, 4, 5)
    layer = linear(torch.Size([3, 4, 5]), torch.Size([7]))
    expected = F.conv2d(feature, layer.weight[..., None, None], layer.bias)
    torch.testing.assert_close(layer(positions(feature)), positions(expected))
    assert projectors.linear(torch.Size([3]), torch.Size([9, 7]), bias=False).weight.shape == (7, 3)
