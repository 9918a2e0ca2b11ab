"""The video encoder: CLIP's vision transformer with temporal attention in every block.

Factorised space-time attention after TimeSformer (Bertasius et al., ICML 2021,
https://arxiv.org/abs/2102.05095) and SVT (Ranasinghe et al., CVPR 2022,
https://arxiv.org/abs/2112.01514). Each frame keeps its CLS token, CLS takes part in temporal
attention, and the clip feature is the mean of the frames' normalised features: with the temporal
output zero-initialised, the encoder starts as frame-averaged CLIP exactly.

Parameters that come from CLIP keep open_clip's names, so weights move both ways by name.
"""

import copy
import math
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from lssl_ray.errors import CheckpointError

TEMPORAL_PREFIXES = ("temporal_embedding", "temporal_norm", "temporal_attn", "temporal_out")


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


class SpaceTimeBlock(nn.Module):
    """Temporal attention over each token position, then CLIP's own block within each frame."""

    def __init__(self, block: ResidualAttentionBlock, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.temporal_norm = nn.LayerNorm(width)
        self.temporal_attn = Attention(width, num_heads=num_heads)
        self.temporal_out = nn.Linear(width, width)
        self.ln_1 = block.ln_1
        self.attn = Attention(width, num_heads=num_heads)
        self.ls_1 = block.ls_1
        self.ln_2 = block.ln_2
        self.mlp = block.mlp
        self.ls_2 = block.ls_2

    def init_temporal(self) -> None:
        """Start time as a copy of space, with an output that is zero."""
        self.temporal_norm.load_state_dict(self.ln_1.state_dict())
        self.temporal_attn.load_state_dict(self.attn.state_dict())
        nn.init.zeros_(self.temporal_out.weight)
        nn.init.zeros_(self.temporal_out.bias)

    def forward(self, x: Float[Tensor, "clips frames tokens width"]) -> Tensor:
        """Mix over time, then over space; same shape out."""
        num_clips, num_frames = x.shape[:2]
        over_time = rearrange(self.temporal_norm(x), "b t n d -> (b n) t d")
        mixed = self.temporal_out(self.temporal_attn(over_time))
        x = x + rearrange(mixed, "(b n) t d -> b t n d", b=num_clips)
        frames = x.flatten(0, 1)  # [B*T, N, D]
        frames = frames + self.ls_1(self.attn(self.ln_1(frames)))
        frames = frames + self.ls_2(self.mlp(self.ln_2(frames)))
        split: Tensor = frames.unflatten(0, (num_clips, num_frames))  # [B, T, N, D]
        return split


class VideoEncoder(nn.Module):
    """Clips to unit-length features in CLIP's joint space.

    Args:
        visual: open_clip's image tower; copied, so that it stays what it was.
        num_frames: Frames that the temporal embedding is made for; other counts interpolate.
    """

    def __init__(self, visual: VisionTransformer, *, num_frames: int) -> None:
        super().__init__()
        visual = copy.deepcopy(visual)
        weights = {name: value.clone() for name, value in visual.state_dict().items()}
        first = visual.transformer.resblocks[0]
        width, num_heads = first.attn.embed_dim, first.attn.num_heads
        self.patch_size: int = visual.patch_size[0]
        self.conv1 = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.temporal_embedding = nn.Parameter(torch.zeros(num_frames, width))
        self.ln_pre = visual.ln_pre
        self.transformer = nn.Module()
        blocks = [
            SpaceTimeBlock(block, width=width, num_heads=num_heads)
            for block in visual.transformer.resblocks
        ]
        self.transformer.resblocks = nn.ModuleList(blocks)
        self.ln_post = visual.ln_post
        self.proj = visual.proj
        _fill_with_nan(self)
        load_image_weights(self, weights)
        for block in blocks:
            block.init_temporal()
        nn.init.zeros_(self.temporal_embedding)
        self.requires_grad_(True)

    @property
    def embedding_dim(self) -> int:
        """Size of the joint space."""
        return int(self.proj.shape[1])

    def forward(
        self, pixels: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips embedding"]:
        """Encode clips.

        Args:
            pixels: RGB, normalised by CLIP's mean and standard deviation; height and width
                divisible by the patch size.

        Returns:
            Unit-length features, in float32 at least.
        """
        pooled = self.encode_frames(pixels)  # [B, T, D]
        projected = pooled @ self.proj  # [B, T, E]
        # Double stays double: checks in float64 go through here.
        precise = projected if projected.dtype == torch.float64 else projected.float()
        per_frame = F.normalize(precise, dim=-1)
        return F.normalize(per_frame.mean(dim=1), dim=-1)  # [B, E]

    def encode_frames(
        self, pixels: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips frames tower"]:
        """Each frame's CLS after the last block, before projection (for linear probes)."""
        num_clips, num_frames, _, height, width = pixels.shape
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"Views of {height}x{width} px don't divide into patches of {self.patch_size} px; "
                "choose view sizes that are multiples of the patch size."
            )
        x = self.conv1(pixels.flatten(0, 1)).flatten(2).transpose(1, 2)  # [B*T, P, D]
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1)  # [B*T, N, D]
        grid = (height // self.patch_size, width // self.patch_size)
        x = x + interpolate_positions(self.positional_embedding, grid).to(x.dtype)
        x = self.ln_pre(x).unflatten(0, (num_clips, num_frames))  # [B, T, N, D]
        x = x + interpolate_times(self.temporal_embedding, num_frames)[:, None].to(x.dtype)
        for block in cast(nn.ModuleList, self.transformer.resblocks):
            x = block(x)
        return cast(Tensor, self.ln_post(x[:, :, 0]))  # [B, T, D]


def load_image_weights(encoder: VideoEncoder, weights: dict[str, Tensor]) -> None:
    """Load open_clip image-tower weights; the temporal parameters are left as they are.

    Raises:
        CheckpointError: Keys are missing or left over, or shapes differ.
    """
    try:
        result = encoder.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"These image-tower weights don't fit the encoder: {error}; clip.model and "
            "clip.weights must match."
        ) from error
    missing = [name for name in result.missing_keys if not is_temporal(name)]
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"These image-tower weights don't fit the encoder: missing {missing[:5]}, "
            f"unexpected {result.unexpected_keys[:5]}; clip.model and clip.weights must match."
        )


def is_temporal(parameter_name: str) -> bool:
    """Whether a parameter belongs to the modules that time added to CLIP."""
    return any(part in TEMPORAL_PREFIXES for part in parameter_name.split("."))


def interpolate_positions(
    positions: Float[Tensor, "tokens width"], grid: tuple[int, int]
) -> Float[Tensor, "new_tokens width"]:
    """CLIP's position embedding for another patch grid, bicubic; the CLS row is kept."""
    side = math.isqrt(positions.shape[0] - 1)
    if grid == (side, side):
        return positions
    patches = rearrange(positions[1:], "(h w) d -> 1 d h w", h=side)
    resized = F.interpolate(patches.float(), size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:1], rearrange(resized, "1 d h w -> (h w) d").to(positions)])


def interpolate_times(
    embedding: Float[Tensor, "frames width"], num_frames: int
) -> Float[Tensor, "num_frames width"]:
    """The temporal embedding for another frame count, linear."""
    if embedding.shape[0] == num_frames:
        return embedding
    resized = F.interpolate(
        embedding.float().T[None], size=num_frames, mode="linear", align_corners=True
    )
    return resized[0].T.to(embedding)


def _fill_with_nan(module: nn.Module) -> None:
    """Anything that is not initialised afterwards explodes at the first step."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(float("nan"))
