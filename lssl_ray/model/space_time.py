"""The video encoder: CLIP's vision transformer with temporal attention in every block.

Factorised space-time attention after TimeSformer (Bertasius et al., ICML 2021,
https://arxiv.org/abs/2102.05095) and SVT (Ranasinghe et al., CVPR 2022,
https://arxiv.org/abs/2112.01514). Two ways to treat the CLS token:

* `per_frame`: each frame keeps its own, which takes part in temporal attention; the clip feature is
  the mean of the frames' normalised features. With the temporal output zero-initialised, the
  encoder starts as frame-averaged CLIP exactly.
* `shared`, as in TimeSformer and SVT: one CLS per clip, repeated per frame for spatial attention,
  where its frames' residuals are averaged; it has no part in temporal attention. On a clip of equal
  frames the encoder starts as CLIP exactly.

Parameters that come from CLIP keep open_clip's names, so weights move both ways by name.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lssl_ray.errors import CheckpointError
from lssl_ray.model.attention import Attention, TemporalAttention, init_attention

ClsHandling = Literal["per_frame", "shared"]
TemporalInit = Literal["copy", "random"]
TEMPORAL_PREFIXES = ("temporal_embedding", "temporal_norm", "temporal_attn", "temporal_out")


class SpaceTimeBlock(nn.Module):
    """Temporal attention over each token position, then CLIP's own block within each frame."""

    def __init__(self, block: ResidualAttentionBlock, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.temporal_norm = nn.LayerNorm(width)
        self.temporal_attn = TemporalAttention(width, num_heads=num_heads)
        self.temporal_out = nn.Linear(width, width)
        self.ln_1 = block.ln_1
        self.attn = Attention(width, num_heads=num_heads)
        self.ls_1 = block.ls_1
        self.ln_2 = block.ln_2
        self.mlp = block.mlp
        self.ls_2 = block.ls_2

    def init_temporal(self, init: TemporalInit) -> None:
        """Start time as a copy of space or at random, with an output that is zero."""
        if init == "copy":
            self.temporal_norm.load_state_dict(self.ln_1.state_dict())
            self.temporal_attn.load_state_dict(self.attn.state_dict())
        else:
            self.temporal_norm.reset_parameters()
            init_attention(self.temporal_attn)
        nn.init.zeros_(self.temporal_out.weight)
        nn.init.zeros_(self.temporal_out.bias)

    def forward(self, x: Float[Tensor, "clips frames tokens width"]) -> Tensor:
        """Mix over time, then over space, CLS among the tokens; same shape out."""
        frames = self._mix_over_time(x).flatten(0, 1)  # [B*T, N, D]
        frames = frames + self.ls_1(self.attn(self.ln_1(frames)))
        split: Tensor = self._transform(frames).unflatten(0, x.shape[:2])  # [B, T, N, D]
        return split

    def forward_shared(
        self,
        cls: Float[Tensor, "clips 1 width"],
        patches: Float[Tensor, "clips frames patches width"],
    ) -> tuple[Tensor, Tensor]:
        """The same with one CLS per clip; same shapes out."""
        patches = self._mix_over_time(patches)
        repeated = cls[:, None].expand(-1, patches.shape[1], -1, -1)  # [B, T, 1, D]
        frames = torch.cat([repeated, patches], dim=2).flatten(0, 1)  # [B*T, N, D]
        residual = self.ls_1(self.attn(self.ln_1(frames))).unflatten(0, patches.shape[:2])
        cls = cls + residual[:, :, :1].mean(dim=1)
        patches = patches + residual[:, :, 1:]
        return self._transform(cls), self._transform(patches)

    def _mix_over_time(self, x: Float[Tensor, "clips frames tokens width"]) -> Tensor:
        mixed: Tensor = self.temporal_out(self.temporal_attn(self.temporal_norm(x)))
        return x + mixed

    def _transform(self, x: Float[Tensor, "*batch tokens width"]) -> Tensor:
        residual: Tensor = self.ls_2(self.mlp(self.ln_2(x)))
        return x + residual


class VideoEncoder(nn.Module):
    """Clips to unit-length features in CLIP's joint space.

    Args:
        visual: open_clip's image tower; copied, so that it stays what it was.
        num_frames: Frames that the temporal embedding is made for; other counts interpolate.
        cls: `per_frame` or `shared`; see the module.
        temporal_init: Temporal attention starts as a `copy` of the spatial one, or `random` (from
            torch's global generator); its output is zero either way.
        activation_checkpointing: In training, keep only each block's input and compute the rest
            again for the gradients: less memory for one more forward.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        *,
        num_frames: int,
        cls: ClsHandling = "per_frame",
        temporal_init: TemporalInit = "copy",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        weights = visual.state_dict()
        visual = copy.deepcopy(visual)
        first = visual.transformer.resblocks[0]
        width, num_heads = first.attn.embed_dim, first.attn.num_heads
        self.cls = cls
        self.activation_checkpointing = activation_checkpointing
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
            block.init_temporal(temporal_init)
        nn.init.zeros_(self.temporal_embedding)
        self.requires_grad_(True)

    @property
    def embedding_dim(self) -> int:
        """Size of the joint space."""
        return int(self.proj.shape[1])

    @property
    def blocks(self) -> list[SpaceTimeBlock]:
        """The blocks, first to last."""
        return cast(list[SpaceTimeBlock], list(cast(nn.ModuleList, self.transformer.resblocks)))

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
        return self.project_cls(self.encode_cls(pixels))

    def encode_pooled(
        self, pixels: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips tower"]:
        """Clip features before projection, not normalised, in float32 at least: for probes."""
        return self.pool_cls(self.encode_cls(pixels))

    def project_cls(
        self, cls: Float[Tensor, "clips cls_tokens tower"]
    ) -> Float[Tensor, "clips embedding"]:
        """What `forward` makes of `encode_cls`."""
        projected = _keep_precise(cls @ self.proj)  # [B, T or 1, E]
        return F.normalize(F.normalize(projected, dim=-1).mean(dim=1), dim=-1)  # [B, E]

    def pool_cls(
        self, cls: Float[Tensor, "clips cls_tokens tower"]
    ) -> Float[Tensor, "clips tower"]:
        """What `encode_pooled` makes of `encode_cls`."""
        return _keep_precise(cls).mean(dim=1)

    def encode_cls(
        self, pixels: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips cls_tokens tower"]:
        """CLS after the last block and norm: one per frame, or the clip's one if shared."""
        x = self._embed(pixels)  # [B, T, N, D]
        times = interpolate_times(self.temporal_embedding, x.shape[1])[:, None].to(x.dtype)
        if self.cls == "shared":
            cls, patches = x[:, 0, :1], x[:, :, 1:] + times
            for block in self.blocks:
                cls, patches = self._run(block.forward_shared, cls, patches)
        else:
            x = x + times
            for block in self.blocks:
                x = self._run(block, x)
            cls = x[:, :, 0]
        return cast(Tensor, self.ln_post(cls))

    def _run(self, block: Callable[..., Any], *states: Tensor) -> Any:
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            # Nothing in a block is random.
            return checkpoint(block, *states, use_reentrant=False, preserve_rng_state=False)
        return block(*states)

    # Inductor can't order the strides of a convolution over pictures of more than one size.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _embed(
        self, pixels: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips frames tokens tower"]:
        """Patches and CLS of each frame, with positions, as CLIP's first block gets them."""
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
        split: Tensor = self.ln_pre(x).unflatten(0, (num_clips, num_frames))
        return split


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


def _keep_precise(x: Tensor) -> Tensor:
    """float32, but double stays double: checks in float64 go through here."""
    return x if x.dtype == torch.float64 else x.float()


def _fill_with_nan(module: nn.Module) -> None:
    """Anything that is not initialised afterwards explodes at the first step."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(float("nan"))
