"""What an encoder makes of a batch's views, for the objectives to compare."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.model.prototype_head import PrototypeHead
from lssl_ray.model.space_time import VideoEncoder


class Encoded(NamedTuple):
    """All views of a batch, encoded.

    Attributes:
        features: Unit-length clip features.
        prototypes: Cosines with learned prototypes, where a head makes them.
    """

    features: Float[Tensor, "views clips embedding"]
    prototypes: Float[Tensor, "views clips prototypes"] | None


def encode_views(
    encoder: VideoEncoder,
    head: PrototypeHead | None,
    views: Sequence[Float[Tensor, "clips _views _frames 3 _height _width"]],
) -> Encoded:
    """Encode views, those of one size in one forward pass."""
    encoded = []
    for pixels in views:
        features = encoder(pixels.flatten(0, 1))  # [B*V, E]
        encoded.append(features.unflatten(0, pixels.shape[:2]).transpose(0, 1))  # [V, B, E]
    together = torch.cat(encoded) if len(encoded) > 1 else encoded[0]
    return Encoded(together, None if head is None else head(together))
