"""The figures of one checkpoint: zero-shot and k-NN on labelled splits, scores without labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lssl_ray.evaluation.features import ViewFeatures, encode_view_features, join_features
from lssl_ray.evaluation.label_free import LabelFreeViews, compute_label_free_scores
from lssl_ray.evaluation.leave_one_out import compute_leave_one_out_knn
from lssl_ray.evaluation.zero_shot import compute_zero_shot
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.training.augment import augment_views
from lssl_ray.training.checkpoint import load_weights
from lssl_ray.validation.decoded import DecodedVideos

VIEWS_PER_BATCH = 16


@dataclass(frozen=True)
class LabelledSplit:
    """Videos with right names.

    Attributes:
        videos: One view each.
        truth: The right name of each, one of `Axes.labels`.
    """

    videos: DecodedVideos
    truth: tuple[str, ...]


@dataclass(frozen=True)
class HeldBackVideos:
    """Unlabelled videos that are not trained on.

    Attributes:
        views: At least two of each, augmented; see `scoring_views`.
        centre: One view each, for CLIP.
    """

    views: DecodedVideos
    centre: DecodedVideos


@dataclass(frozen=True)
class Axes:
    """What features are compared with.

    Attributes:
        labels: Names that zero-shot chooses from.
        answers: Their unit-length embeddings.
        category: Unit-length label embeddings of the space trained in, for label-free scores.
        description: Of its descriptions; None where there are none.
        link: Which description belongs to which label; None: row by row.
        temperature: CLIP's own; divides cosines in label-free scores.
    """

    labels: tuple[str, ...]
    answers: Float[Tensor, "labels embedding"]
    category: Float[Tensor, "trained embedding"]
    description: Float[Tensor, "descriptions embedding"] | None
    link: Float[Tensor, "trained descriptions"] | None
    temperature: float


class CheckpointEvaluator:
    """Evaluates checkpoints of one run, one after the other.

    Args:
        encoder: Still CLIP, on its device, in evaluation mode; its weights are replaced.
        mean: Per-channel pixel mean in [0, 1] that the weights want.
        std: Per-channel pixel standard deviation.
        axes: See there.
        splits: Labelled videos by name; none for no such figures.
        held_back: None for no label-free scores.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        axes: Axes,
        splits: Mapping[str, LabelledSplit],
        held_back: HeldBackVideos | None,
    ) -> None:
        self._encoder = encoder
        self._mean, self._std = mean, std
        self._axes = axes
        self._splits = splits
        self._held_back = held_back
        # Of CLIP itself, once: a moment later its weights are gone.
        self._clip = None if held_back is None else self._encode(held_back.centre).joint[:, 0]

    def evaluate(self, checkpoint: Path) -> dict[str, float]:
        """Scores by metric name: of the teacher, and of the student where both are compared.

        Raises:
            CheckpointError: Weights that can't be read or don't fit.
            DataError: Damaged features, or too few videos for a score.
        """
        scores = {}
        load_weights(self._encoder, checkpoint / "teacher.safetensors")
        for name, split in self._splits.items():
            features = self._encode(split.videos)
            zero_shot = compute_zero_shot(
                features.joint, self._axes.answers, labels=self._axes.labels, truth=split.truth
            )
            scores[f"validation/{name}/zero_shot"] = zero_shot.top1
            if len(split.truth) > 1:
                pooled = features.pooled.mean(dim=1)
                knn = compute_leave_one_out_knn(pooled, truth=split.truth)
                scores[f"validation/{name}/knn"] = knn
        if self._held_back is not None:
            scores |= self._score_held_back(checkpoint, self._held_back)
        return scores

    def _score_held_back(self, checkpoint: Path, videos: HeldBackVideos) -> dict[str, float]:
        """With the teacher's weights loaded; leaves the student's."""
        assert self._clip is not None
        rows, centre_rows = _find_common(videos)
        teacher = self._encode_augmented(videos.views)
        load_weights(self._encoder, checkpoint / "student.safetensors")
        student = self._encode_augmented(videos.views)
        found = compute_label_free_scores(
            LabelFreeViews(teacher[rows], student[rows], self._clip[centre_rows]),
            category=self._axes.category,
            description=self._axes.description,
            link=self._axes.link,
            temperature=self._axes.temperature,
        )
        return {f"held_back/{name}": value for name, value in found.items()}

    def _encode(self, videos: DecodedVideos) -> ViewFeatures:
        """Views as they are."""
        device = next(self._encoder.parameters()).device
        return join_features(
            [
                encode_view_features(
                    self._encoder, frames.to(device), mean=self._mean, std=self._std
                )
                for frames, _ in _iterate(videos)
            ]
        )

    @torch.inference_mode()
    def _encode_augmented(self, videos: DecodedVideos) -> Float[Tensor, "videos views embedding"]:
        device = next(self._encoder.parameters()).device
        parts = []
        for frames, values in _iterate(videos):
            assert values is not None
            pixels = augment_views(
                frames.to(device), values.to(device), mean=self._mean, std=self._std
            )
            features = self._encoder(pixels.flatten(0, 1))  # [B*V, E]
            parts.append(features.unflatten(0, pixels.shape[:2]).cpu())
        return torch.cat(parts)


def _iterate(videos: DecodedVideos) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Frames, and their augmentation, of some videos at a time."""
    count = max(1, VIEWS_PER_BATCH // videos.frames.shape[1])
    for start in range(0, len(videos.frames), count):
        # Copied: what is read from disk can't be written to, and torch warns of that.
        frames = torch.from_numpy(np.array(videos.frames[start : start + count]))
        values = videos.augmentation
        yield (
            frames,
            None if values is None else torch.from_numpy(values[start : start + count]),
        )


def _find_common(videos: HeldBackVideos) -> tuple[list[int], list[int]]:
    """Rows of `views` and of `centre` of the videos that decoded for both."""
    centre = {video_id: row for row, video_id in enumerate(videos.centre.video_ids)}
    rows = [row for row, one in enumerate(videos.views.video_ids) if one in centre]
    return rows, [centre[videos.views.video_ids[row]] for row in rows]
