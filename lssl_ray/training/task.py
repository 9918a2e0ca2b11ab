"""The method in one screen: student and teacher look at a batch, the objectives compare them.

Language-based Self-Supervision (Ranasinghe and Ryoo, NeurIPS 2023,
https://arxiv.org/abs/2307.10922). Plain torch; knows no data path, schedule owner or cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lssl_ray.losses import (
    blend_running_mean,
    compute_concept_scores,
    concept_alignment,
    concept_distillation,
    uniform_prior,
    update_center,
)
from lssl_ray.model.prototype_head import PrototypeHead
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.teacher import build_teacher
from lssl_ray.training.augment import augment_views
from lssl_ray.training.encoding import Encoded, encode_views
from lssl_ray.training.monitors import compute_monitors
from lssl_ray.types import ClipBatch, StepOutput

Spaces = Literal["both", "category", "description"]


@dataclass(frozen=True)
class LossWeights:
    """Factors of the objectives, each >= 0; distillation over prototypes always weighs 1."""

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
        spaces: Where objectives act: in `both` spaces, or in one; alignment needs both.
        head: The student's head of the baseline, whose prototypes take the concepts' place in
            the objectives; the teacher gets a copy. None for concepts.
        prior_running_mean: Momentum of the prior's mean over steps, in [0, 1); 0 is off.
        centering_momentum: Of the teacher's centers, in [0, 1); None is off.
        mean: CLIP's per-channel pixel mean.
        std: CLIP's per-channel pixel standard deviation.

    Attributes:
        memory: Running means of the objectives by name, absent before the first step. Whoever
            takes a step puts the output's `memory` here; checkpoints keep it.
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
        spaces: Spaces = "both",
        head: PrototypeHead | None = None,
        prior_running_mean: float = 0.0,
        centering_momentum: float | None = None,
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
        self.student_head = head
        self.teacher_head = None if head is None else build_teacher(head)
        self.register_buffer("categories", categories)
        self.register_buffer("descriptions", descriptions)
        self.register_buffer("link", link)
        self.spaces = spaces
        self.prior_running_mean = prior_running_mean
        self.centering_momentum = centering_momentum
        self.mean, self.std = mean, std
        self.memory: Mapping[str, Tensor] = {}

    def averaged_pairs(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """Each trained module and its moving average, by the suffix of their names."""
        pairs: dict[str, tuple[nn.Module, nn.Module]] = {"": (self.student, self.teacher)}
        if self.student_head is not None and self.teacher_head is not None:
            pairs["_head"] = (self.student_head, self.teacher_head)
        return pairs

    def train(self, mode: bool = True) -> "LssTask":
        """Only the student ever leaves evaluation mode."""
        super().train(mode)
        for _, teacher in self.averaged_pairs().values():
            teacher.eval()
        return self

    def forward(
        self,
        batch: ClipBatch,
        *,
        weights: LossWeights,
        temperatures: Temperatures,
        clip_share: float = 1.0,
        all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
        encode_student: Callable[[Sequence[Tensor]], Encoded] | None = None,
    ) -> StepOutput:
        """Compute the objectives on one worker's clips; changes nothing.

        Args:
            batch: At least one clip, on this module's device.
            weights: Of the objectives in the total.
            temperatures: Of student and teacher.
            clip_share: This worker's clips over the mean of all workers: makes the average of
                the workers' gradients that of the global batch when their counts differ.
            all_reduce_mean: Differentiable mean over workers, weighted by clips; see
                `losses.uniform_prior`.
            encode_student: Takes the place of the method, to let DDP around it see the pass.
        """
        views = self.prepare_views(batch)
        return self.compare(
            (encode_student or self.encode_student)(views),
            self.encode_teacher(views),
            weights=weights,
            temperatures=temperatures,
            clip_share=clip_share,
            all_reduce_mean=all_reduce_mean,
        )

    def prepare_views(self, batch: ClipBatch) -> list[Tensor]:
        """Pixels of the global views and, where there are any, of the local ones."""
        num_global = batch.global_views.shape[1]
        values = batch.augmentation
        kinds = [(batch.global_views, values[:, :num_global])]
        if batch.local_views is not None and batch.local_views.shape[1]:
            kinds.append((batch.local_views, values[:, num_global:]))
        return [augment_views(*kind, mean=self.mean, std=self.std) for kind in kinds]

    def encode_student(self, views: Sequence[Tensor]) -> Encoded:
        """The student's look at all views: everything that has gradients."""
        return encode_views(self.student, self.student_head, views)

    def encode_teacher(self, views: Sequence[Tensor]) -> Encoded:
        """The teacher's look at the global views."""
        with torch.inference_mode():
            features, prototypes = encode_views(self.teacher, self.teacher_head, views[:1])
        # Outside, because autograd may not save what inference mode made.
        return Encoded(features.clone(), None if prototypes is None else prototypes.clone())

    def compare(
        self,
        student: Encoded,
        teacher: Encoded,
        *,
        weights: LossWeights,
        temperatures: Temperatures,
        clip_share: float = 1.0,
        all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
    ) -> StepOutput:
        """The objectives of encoded views, student's first all global ones; see `forward`."""
        both = {
            "student_temperature": temperatures.student,
            "teacher_temperature": temperatures.teacher,
        }
        terms: dict[str, Tensor] = {}
        priors: dict[str, Tensor] = {}
        memory: dict[str, Tensor] = {}
        # bf16 cosines would be off by whole units once divided by the temperature.
        with torch.autocast(student.features.device.type, enabled=False):
            student_scores, teacher_scores = self._score(student), self._score(teacher)
            for name, scores in teacher_scores.items():
                teacher_scores[name] = self._center(name, scores, memory, all_reduce_mean)
                terms[f"distill_{name}"] = concept_distillation(
                    student_scores[name], teacher_scores[name], **both
                )
                priors[f"prior_{name}"] = uniform_prior(
                    student_scores[name],
                    student_temperature=temperatures.student,
                    all_reduce_mean=self._extend_mean(name, memory, all_reduce_mean),
                )
            if len(student_scores) == 2:
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
                    student.features @ self.categories.T,
                    teacher.features @ self.categories.T,
                    temperature=temperatures.student,
                )
        weighted = {**vars(weights), "distill_prototypes": 1.0}
        shared = sum(
            (weighted[name] * value for name, value in terms.items()),
            start=student.features.sum() * 0.0,  # every parameter has a gradient, even a zero one
        )
        global_prior = weights.prior * sum(priors.values())
        every = {**terms, **priors, "total": shared + global_prior}
        return StepOutput(
            loss=clip_share * shared + global_prior,
            terms={name: value.detach() for name, value in every.items()},
            monitors=monitors,
            memory=memory,
        )

    def _score(self, encoded: Encoded) -> dict[str, Float[Tensor, "views clips concepts"]]:
        """Cosines by the space in which the objectives act."""
        if encoded.prototypes is not None:
            return {"prototypes": encoded.prototypes}
        matrices = {"category": self.categories, "description": self.descriptions}
        names = matrices if self.spaces == "both" else (self.spaces,)
        return {
            name: compute_concept_scores(encoded.features, matrix)
            for name in names
            if (matrix := matrices[name]) is not None
        }

    def _center(
        self,
        name: str,
        scores: Float[Tensor, "g clips concepts"],
        memory: dict[str, Tensor],
        all_reduce_mean: Callable[[Tensor], Tensor] | None,
    ) -> Float[Tensor, "g clips concepts"]:
        """Teacher scores less the center of the steps before."""
        if self.centering_momentum is None:
            return scores
        key = f"center/{name}"
        center = self.memory.get(key)
        memory[key] = update_center(
            center, scores, momentum=self.centering_momentum, all_reduce_mean=all_reduce_mean
        )
        return scores if center is None else scores - center

    def _extend_mean(
        self,
        name: str,
        memory: dict[str, Tensor],
        all_reduce_mean: Callable[[Tensor], Tensor] | None,
    ) -> Callable[[Tensor], Tensor] | None:
        """The prior's mean over workers, continued over steps."""
        if not self.prior_running_mean:
            return all_reduce_mean

        def mean(local: Tensor) -> Tensor:
            batch_mean = local if all_reduce_mean is None else all_reduce_mean(local)
            key = f"prior_mean/{name}"
            blended = blend_running_mean(
                batch_mean, self.memory.get(key), momentum=self.prior_running_mean
            )
            memory[key] = blended.detach()
            return blended

        return mean
