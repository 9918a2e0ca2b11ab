"""CLIP's pixel normalisation."""

from jaxtyping import Float, UInt8
from torch import Tensor


def normalise(
    pixels: Float[Tensor, "*batch 3 height width"],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "*batch 3 height width"]:
    """(pixels - mean) / std per channel, for pixels in [0, 1]."""
    shape = (3, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)


def to_pixels(
    frames: UInt8[Tensor, "*batch height width 3"],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "*batch 3 height width"]:
    """Decoded RGB in [0, 255] to what the encoder takes."""
    return normalise(frames.movedim(-1, -3).float() / 255, mean=mean, std=std)
