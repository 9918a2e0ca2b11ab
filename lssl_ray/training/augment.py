"""The augmentation arithmetic on the training device: uint8 views in, normalised floats out.

Each view's draw came with the batch (`video/views.py`); this applies it to all frames of the view
alike. Order: brightness, contrast, saturation, grey, flip, normalise.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lssl_ray.model.pixels import normalise
from lssl_ray.types import BRIGHTNESS, CONTRAST, FLIP, GREY, SATURATION

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def augment_views(
    views: UInt8[Tensor, "clips views frames height width 3"],
    augmentation: Float[Tensor, "clips views values"],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "clips views frames 3 height width"]:
    """Apply each view's colour and flip, then CLIP's normalisation.

    Args:
        views: RGB in [0, 255].
        augmentation: Per view: flip, brightness, contrast, saturation, grey (`types.py`).
        mean: Per-channel mean in [0, 1].
        std: Per-channel standard deviation.

    Returns:
        float32, about zero mean and unit variance.
    """
    values = augmentation[:, :, None, None, None, None, :]  # [B, V, 1, 1, 1, 1, values]
    x = views.movedim(-1, 3).float() / 255  # [B, V, T, 3, H, W]
    x = (x * values[..., BRIGHTNESS]).clamp(0, 1)
    # Contrast pivots on the mean grey of the whole view, not frame by frame: no flicker.
    pivot = _luma(x).mean(dim=(2, 3, 4, 5), keepdim=True)
    x = (pivot + (x - pivot) * values[..., CONTRAST]).clamp(0, 1)
    grey = _luma(x)
    x = (grey + (x - grey) * values[..., SATURATION]).clamp(0, 1)
    x = torch.where(values[..., GREY] > 0, _luma(x), x)
    x = torch.where(values[..., FLIP] > 0, x.flip(-1), x)
    return normalise(x, mean=mean, std=std)


def _luma(x: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 1 height width"]:
    return (x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(dim=-3, keepdim=True)
