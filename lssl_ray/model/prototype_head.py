"""DINO's projection head: the natural baseline to text concepts, prototypes that are learned.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
https://arxiv.org/abs/2104.14294
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BOTTLENECK = 256
_INIT_STD = 0.02


class PrototypeHead(nn.Module):
    """Features to cosines with learned prototypes: a three-layer MLP, then unit-length rows.

    The last layer has no bias and rows of length one, however long its weights are: weight
    normalisation with a fixed norm.

    Args:
        embedding_dim: Size of the features.
        hidden: Width of the two hidden layers.
        num_prototypes: Rows to compare with, >= 2.
        bottleneck: Size in which features and prototypes meet.
    """

    def __init__(
        self, embedding_dim: int, *, hidden: int, num_prototypes: int, bottleneck: int = BOTTLENECK
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embedding_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_INIT_STD)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.prototypes)

    def forward(
        self, features: Float[Tensor, "views clips embedding"]
    ) -> Float[Tensor, "views clips prototypes"]:
        """Cosines in [-1, 1], in the features' precision even under autocast."""
        # bf16 cosines would be off by whole units once divided by the temperature.
        with torch.autocast(features.device.type, enabled=False):
            x = F.normalize(cast(Tensor, self.mlp(features)), dim=-1)  # [V, B, bottleneck]
            return F.linear(x, F.normalize(self.prototypes, dim=-1))
