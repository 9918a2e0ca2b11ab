"""The augmentation arithmetic against numpy, one pixel at a time."""

import lss_parts
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lssl_ray.training.augment import augment_views
from lssl_ray.video.views import neutral_augmentation

MEAN, STD = lss_parts.MEAN, lss_parts.STD


def augment(views: Tensor, values: Tensor) -> Tensor:
    return augment_views(views, values, mean=MEAN, std=STD)


def draw_views(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)


def mix_luma(rgb: NDArray[np.float64]) -> float:
    return float(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])


def augment_by_pixel(view: NDArray[np.uint8], values: list[float]) -> NDArray[np.float64]:
    """uint8 [T, H, W, 3] to [T, 3, H, W]: colour, grey, flip, normalise, in that order."""
    flip, brightness, contrast, saturation, grey = values
    num_frames, height, width, _ = view.shape
    out = np.zeros((num_frames, 3, height, width))
    bright = np.clip(view / 255 * brightness, 0, 1)
    lumas = [mix_luma(rgb) for rgb in bright.reshape(-1, 3)]
    pivot = sum(lumas) / len(lumas)
    for t in range(num_frames):
        for i in range(height):
            for j in range(width):
                rgb = np.clip(pivot + (bright[t, i, j] - pivot) * contrast, 0, 1)
                luma = mix_luma(rgb)
                rgb = np.clip(luma + (rgb - luma) * saturation, 0, 1)
                if grey:
                    rgb = np.full(3, mix_luma(rgb))
                column = width - 1 - j if flip else j
                out[t, :, i, column] = (rgb - MEAN) / STD
    return out


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.3, 1.0, 1.0, 0.0],
        [0.0, 1.0, 0.6, 1.0, 0.0],
        [0.0, 1.0, 1.4, 1.0, 0.0],
        [0.0, 1.0, 1.0, 0.0, 0.0],
        [0.0, 1.0, 1.0, 1.8, 0.0],
        [0.0, 1.0, 1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0, 1.0, 0.0],
        [1.0, 0.7, 1.4, 0.8, 1.0],
        [1.0, 1.4, 1.3, 1.2, 0.0],
        [0.0, 0.0, 1.0, 1.0, 0.0],
    ],
)
def test_augment_views_equals_per_pixel_arithmetic(values: list[float]) -> None:
    views = draw_views(1, 1, 2, 4, 5)
    actual = augment(views, torch.tensor(values)[None, None])
    assert actual.dtype == torch.float32 and actual.shape == (1, 1, 2, 3, 4, 5)
    expected = augment_by_pixel(views[0, 0].numpy(), values)
    np.testing.assert_allclose(actual[0, 0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_augment_views_each_view_gets_its_own_values() -> None:
    views = draw_views(2, 3, 2, 4, 4)
    generator = torch.Generator().manual_seed(1)
    values = 0.6 + 0.8 * torch.rand(2, 3, 5, generator=generator)
    values[..., 0] = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    values[..., 4] = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    actual = augment(views, values)
    for clip in range(2):
        for view in range(3):
            expected = augment_by_pixel(views[clip, view].numpy(), values[clip, view].tolist())
            np.testing.assert_allclose(actual[clip, view].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_augment_views_neutral_values_are_plain_normalisation() -> None:
    views = draw_views(2, 2, 3, 4, 4)
    neutral = torch.from_numpy(neutral_augmentation()).expand(2, 2, 5)
    expected = (views.numpy() / 255 - np.array(MEAN)) / np.array(STD)
    actual = augment(views, neutral).movedim(3, -1).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_augment_views_flip_mirrors_columns_exactly() -> None:
    views = draw_views(1, 1, 2, 3, 6)
    neutral = torch.from_numpy(neutral_augmentation())[None, None]
    flipped = neutral.clone()
    flipped[..., 0] = 1
    assert torch.equal(augment(views, flipped), augment(views, neutral).flip(-1))


def test_augment_views_grey_has_equal_channels_before_normalisation() -> None:
    values = torch.from_numpy(neutral_augmentation())[None, None].clone()
    values[..., 4] = 1
    grey = augment(draw_views(1, 1, 2, 3, 3), values)[0, 0]
    pixels = grey * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(pixels[:, 0], pixels[:, 1], rtol=0, atol=1e-6)
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2], rtol=0, atol=1e-6)
