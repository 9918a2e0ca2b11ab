"""The straightforward training step that `step.py` measures ours against.

What a paper's script does: a forward pass per view, `nn.MultiheadAttention`, tensors copied between
space and time, a Python loop over pairs of views, one parameter at a time in EMA and AdamW.
"""

import copy

import torch
import torch.nn.functional as F
from einops import rearrange
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from lssl_ray.types import ClipBatch

MOMENTUM, RATE, DECAY = 0.996, 1e-5, 0.04
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.05


class PlainBlock(nn.Module):
    """Temporal attention, then CLIP's block, as one writes them first."""

    def __init__(self, block: nn.Module, *, num_heads: int) -> None:
        super().__init__()
        width = block.ln_1.weight.shape[0]
        self.temporal_norm = copy.deepcopy(block.ln_1)
        self.temporal_attn = _build_attention(block.attn, width, num_heads)
        self.temporal_out = nn.Linear(width, width)
        nn.init.zeros_(self.temporal_out.weight)
        nn.init.zeros_(self.temporal_out.bias)
        self.ln_1, self.ln_2 = copy.deepcopy(block.ln_1), copy.deepcopy(block.ln_2)
        self.attn = _build_attention(block.attn, width, num_heads)
        self.mlp = copy.deepcopy(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, N, D] to the same shape."""
        batch, frames = x.shape[:2]
        over_time = rearrange(x, "b t n d -> (b n) t d")
        normed = self.temporal_norm(over_time)
        mixed = self.temporal_out(self.temporal_attn(normed, normed, normed)[0])
        over_time = over_time + mixed
        x = rearrange(over_time, "(b n) t d -> (b t) n d", b=batch)
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed)[0]
        x = x + self.mlp(self.ln_2(x))
        return rearrange(x, "(b t) n d -> b t n d", t=frames)


class PlainEncoder(nn.Module):
    """The same function as `VideoEncoder`, per-frame CLS."""

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        self.conv1 = copy.deepcopy(visual.conv1)
        self.class_embedding = nn.Parameter(visual.class_embedding.detach().clone())
        self.positional_embedding = nn.Parameter(visual.positional_embedding.detach().clone())
        self.ln_pre, self.ln_post = copy.deepcopy(visual.ln_pre), copy.deepcopy(visual.ln_post)
        num_heads = visual.transformer.resblocks[0].attn.num_heads
        self.blocks = nn.ModuleList(
            PlainBlock(block, num_heads=num_heads) for block in visual.transformer.resblocks
        )
        self.proj = nn.Parameter(visual.proj.detach().clone())
        self.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, T, 3, H, W] to unit-length [B, E]."""
        batch = pixels.shape[0]
        x = self.conv1(rearrange(pixels, "b t c h w -> (b t) c h w"))
        side = x.shape[-1]
        x = rearrange(x, "n d h w -> n (h w) d")
        cls = self.class_embedding.expand(x.shape[0], 1, -1)
        positions = self.positional_embedding
        old = int((positions.shape[0] - 1) ** 0.5)
        if side != old:
            grid = rearrange(positions[1:], "(h w) d -> 1 d h w", h=old)
            grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
            positions = torch.cat([positions[:1], rearrange(grid, "1 d h w -> (h w) d")])
        x = self.ln_pre(torch.cat([cls, x], dim=1) + positions)
        x = rearrange(x, "(b t) n d -> b t n d", b=batch)
        for block in self.blocks:
            x = block(x)
        features = F.normalize((self.ln_post(x[:, :, 0]) @ self.proj).float(), dim=-1)
        return F.normalize(features.mean(dim=1), dim=-1)


def _build_attention(source: nn.Module, width: int, num_heads: int) -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
    attention.load_state_dict(source.state_dict())
    return attention


class PlainStep:
    """The step as a loop over views and pairs of views."""

    def __init__(
        self,
        visual: VisionTransformer,
        spaces: tuple[Tensor, Tensor],
        batch: ClipBatch,
        stats: dict[str, tuple[float, ...]],
        dtype: torch.dtype,
    ) -> None:
        device = spaces[0].device
        self.student = PlainEncoder(visual).to(device).train()
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.spaces, self.batch, self.stats, self.dtype = spaces, batch, stats, dtype
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=RATE, weight_decay=DECAY, foreach=False, fused=False
        )

    def __call__(self) -> Tensor:
        """One update; returns the loss."""
        self.optimizer.zero_grad()
        with torch.autocast(self.spaces[0].device.type, dtype=self.dtype,
                            enabled=self.dtype != torch.float32):  # fmt: skip
            global_views, local_views = self._views()
            with torch.no_grad():
                teacher = [self.teacher(view) for view in global_views]
            student = [self.student(view) for view in global_views + local_views]
        loss = self._loss(student, teacher)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 3.0, foreach=False)
        self.optimizer.step()
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                old.data = MOMENTUM * old.data + (1 - MOMENTUM) * new.data
        return loss.detach()

    def _views(self) -> tuple[list[Tensor], list[Tensor]]:
        """Normalised pixels [B, T, 3, H, W] per view; the bench's augmentation is neutral."""

        def prepare(views: Tensor | None) -> list[Tensor]:
            if views is None:
                return []
            mean, std = (
                torch.tensor(self.stats[name], device=views.device).view(3, 1, 1)
                for name in ("mean", "std")
            )
            return [
                (rearrange(view.float() / 255, "b t h w c -> b t c h w") - mean) / std
                for view in views.unbind(1)
            ]

        return prepare(self.batch.global_views), prepare(self.batch.local_views)

    def _loss(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        total = torch.zeros((), device=self.spaces[0].device)
        num_pairs = len(teacher) * (len(student) - 1)
        category, description = self.spaces
        for matrix, other in ((category, description), (description, category)):
            for a, teacher_view in enumerate(teacher):
                target = F.softmax(teacher_view @ matrix.T / TEACHER_TEMPERATURE, dim=-1)
                for b, student_view in enumerate(student):
                    if a == b:
                        continue
                    own = F.log_softmax(student_view @ matrix.T / STUDENT_TEMPERATURE, dim=-1)
                    across = F.log_softmax(student_view @ other.T / STUDENT_TEMPERATURE, dim=-1)
                    distill = -(target * own).sum(-1).mean()
                    align = -(target * across).sum(-1).mean()
                    total = total + (distill + 0.5 * align) / num_pairs
            predictions = [
                F.softmax(view @ matrix.T / STUDENT_TEMPERATURE, dim=-1) for view in student
            ]
            mean = torch.stack(predictions).mean(dim=(0, 1))
            total = total + (mean * mean.log()).sum() + torch.tensor(float(len(mean))).log()
        return total
