"""The method in one screen: student and teacher look at a batch, the objectives compare them.

Language-based Self-Supervision (Ranasinghe and Ryoo, NeurIPS 2023,
https://arxiv.org/abs/2307.10922). Plain torch; knows no data path, schedule owner or cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lssl_ray.losses import (
    compute_concept_scores,
    concept_alignment,
    concept_distillation,
    uniform_prior,
)
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.training.augment import augment_views
from lssl_ray.training.monitors import compute_monitors
from lssl_ray.types import ClipBatch, StepOutput

Spaces = Literal["both", "category", "description"]


@dataclass(frozen=True)
class LossWeights:
    """Factors of the objectives, each >= 0; a zero leaves the objective out."""

    distill_category: float
    distill_description: float
    align: float
    prior: float


@dataclass(frozen=True)
class Temperatures:
    """What cosines are divided by before the softmax."""

    student: float
    teacher: float


class LssTask(nn.Module):
    """Student, teacher, concept matrices and objectives as one module.

    Args:
        student: Trained.
        teacher: Never trained here; always in evaluation mode.
        categories: Unit-length rows [n, E]; always there, because health is measured on them.
        descriptions: Unit-length rows [n or m, E]; None leaves that space out.
        link: 0/1 matrix [n, m] of the full layout, or None.
        weights: Factors of the objectives.
        spaces: Where objectives act: in `both` spaces, or in one; alignment needs both.
        mean: CLIP's per-channel pixel mean.
        std: CLIP's per-channel pixel standard deviation.
    """

    categories: Tensor
    descriptions: Tensor | None
    link: Tensor | None

    def __init__(
        self,
        student: VideoEncoder,
        teacher: VideoEncoder,
        *,
        categories: Float[Tensor, "n embedding"],
        descriptions: Float[Tensor, "m embedding"] | None,
        link: Float[Tensor, "n m"] | None,
        weights: LossWeights,
        spaces: Spaces = "both",
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        if spaces != "category" and descriptions is None:
            raise ValueError(
                f"spaces={spaces!r} needs a description space; give the labels descriptions, or "
                "train with spaces='category'."
            )
        self.student = student
        self.teacher = teacher.eval()
        self.register_buffer("categories", categories)
        self.register_buffer("descriptions", descriptions)
        self.register_buffer("link", link)
        self.weights = weights
        self.spaces = spaces
        self.mean, self.std = mean, std

    def train(self, mode: bool = True) -> "LssTask":
        """Only the student ever leaves evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self,
        batch: ClipBatch,
        *,
        temperatures: Temperatures,
        clip_share: float = 1.0,
        all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
    ) -> StepOutput:
        """Compute the objectives on one worker's clips.

        Args:
            batch: At least one clip, on this module's device.
            temperatures: Of student and teacher.
            clip_share: This worker's clips over the mean of all workers: makes the average of
                the workers' gradients that of the global batch when their counts differ.
            all_reduce_mean: Differentiable mean over workers, weighted by clips; see
                `losses.uniform_prior`.
        """
        num_local = 0 if batch.local_views is None else batch.local_views.shape[1]
        num_global = batch.global_views.shape[1]
        values = batch.augmentation
        global_pixels = self._prepare(batch.global_views, values[:, :num_global])
        with torch.no_grad():
            teacher_features = self._encode(self.teacher, global_pixels)  # [G, B, E]
        student_features = self._encode(self.student, global_pixels)
        if num_local:
            assert batch.local_views is not None
            local_pixels = self._prepare(batch.local_views, values[:, num_global:])
            student_local = self._encode(self.student, local_pixels)
            student_features = torch.cat([student_features, student_local])  # [V, B, E]

        # bf16 cosines would be off by whole units once divided by the temperature.
        with torch.autocast(student_features.device.type, enabled=False):
            terms, priors, monitors = self._objectives(
                student_features, teacher_features, temperatures, all_reduce_mean
            )
        weights = self.weights
        weighted = {
            "distill_category": weights.distill_category,
            "distill_description": weights.distill_description,
            "align": weights.align,
        }
        shared = sum(
            (weighted[name] * value for name, value in terms.items()),
            start=student_features.sum() * 0.0,  # every parameter has a gradient, even a zero one
        )
        global_prior = weights.prior * sum(priors.values())
        every = {**terms, **priors, "total": shared + global_prior}
        return StepOutput(
            loss=clip_share * shared + global_prior,
            terms={name: value.detach() for name, value in every.items()},
            monitors=monitors,
        )

    def _objectives(
        self,
        student_features: Float[Tensor, "v clips embedding"],
        teacher_features: Float[Tensor, "g clips embedding"],
        temperatures: Temperatures,
        all_reduce_mean: Callable[[Tensor], Tensor] | None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        both = {
            "student_temperature": temperatures.student,
            "teacher_temperature": temperatures.teacher,
        }
        matrices = {"category": self.categories, "description": self.descriptions}
        names = matrices if self.spaces == "both" else (self.spaces,)
        student_scores, teacher_scores, terms, priors = {}, {}, {}, {}
        for name in names:
            matrix = matrices[name]
            assert matrix is not None
            student_scores[name] = compute_concept_scores(student_features, matrix)  # [V, B, K]
            teacher_scores[name] = compute_concept_scores(teacher_features, matrix)  # [G, B, K]
            terms[f"distill_{name}"] = concept_distillation(
                student_scores[name], teacher_scores[name], **both
            )
            priors[f"prior_{name}"] = uniform_prior(
                student_scores[name],
                student_temperature=temperatures.student,
                all_reduce_mean=all_reduce_mean,
            )
        if self.spaces == "both":
            terms["align"] = concept_alignment(
                student_scores["category"],
                student_scores["description"],
                teacher_scores["category"],
                teacher_scores["description"],
                link=self.link,
                **both,
            )
        with torch.no_grad():
            monitors = compute_monitors(
                student_features @ self.categories.T,
                teacher_features @ self.categories.T,
                temperature=temperatures.student,
            )
        return terms, priors, monitors

    def _prepare(self, views: Tensor, augmentation: Tensor) -> Tensor:
        return augment_views(views, augmentation, mean=self.mean, std=self.std)

    def _encode(
        self, encoder: VideoEncoder, pixels: Float[Tensor, "clips views frames 3 height width"]
    ) -> Float[Tensor, "views clips embedding"]:
        """All views of one size in one forward pass."""
        features: Tensor = encoder(pixels.flatten(0, 1))  # [B*V, E]
        by_clip: Tensor = features.unflatten(0, pixels.shape[:2])  # [B, V, E]
        return by_clip.transpose(0, 1)  # [V, B, E]
