"""Self-attention with open_clip's parameter names, over tokens and over frames."""

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention over the second-to-last axis, with open_clip's parameter names."""

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "sequences tokens width"]) -> Tensor:
        """Attend within each sequence; same shape out."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # [S, N, 3D]
        q, k, v = rearrange(qkv, "s n (three h d) -> three s h n d", three=3, h=self.num_heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.out_proj(rearrange(mixed, "s h n d -> s n (h d)")))


class TemporalAttention(Attention):
    """The same over frames, each token position for itself, without moving the frames' axis."""

    def forward(self, x: Float[Tensor, "clips frames tokens width"]) -> Tensor:
        """Attend over the frames of each token position; same shape out."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(3)  # [B, T, N, H, d] each
        # With a few frames this is a quarter faster on a CPU than the fused kernel, which is made
        # for long sequences; the scores are small.
        scores = torch.einsum("btnhd,bsnhd->bnhts", q * q.shape[-1] ** -0.5, k)
        mixed = torch.einsum("bnhts,bsnhd->btnhd", scores.softmax(dim=-1), v)
        return cast(Tensor, self.out_proj(mixed.flatten(-2)))


@torch.no_grad()
def init_attention(attention: Attention) -> None:
    """Draw weights as CLIP does for its transformers: normal, variance 1/width; biases zero."""
    std = attention.out_proj.in_features**-0.5
    for weight in (attention.in_proj_weight, attention.out_proj.weight):
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(attention.in_proj_bias)
    nn.init.zeros_(attention.out_proj.bias)
