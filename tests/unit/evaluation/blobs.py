"""Features with known structure for probes and k-NN: a noisy direction per label."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LABELS = ("cook", "dive", "run", "sing")


@dataclass(frozen=True)
class Blobs:
    """A training and a test split."""

    train: Tensor
    train_truth: list[str]
    test: Tensor
    test_truth: list[str]


def draw_blobs(
    *, num_train: int = 120, num_test: int = 80, dim: int = 12, noise: float = 1.5, seed: int = 0
) -> Blobs:
    """Unit features around a random direction per label of `LABELS`, labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(len(LABELS), dim, generator=generator), dim=-1)

    def draw(count: int) -> tuple[Tensor, list[str]]:
        indices = torch.arange(count) % len(LABELS)
        rows = centres[indices] + noise * torch.randn(count, dim, generator=generator) / dim**0.5
        return F.normalize(rows, dim=-1), [LABELS[index] for index in indices.tolist()]

    return Blobs(*draw(num_train), *draw(num_test))
