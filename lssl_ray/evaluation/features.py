"""Features of whole videos: all views of each, through one or several encoders.

A video that does not decode has no features; it is excluded from every figure by the rule
`excluded_undecodable` and listed by reason, never replaced and never counted as right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lssl_ray.evaluation.views import SLOW, EvaluationView, plan_evaluation_views
from lssl_ray.model.pixels import to_pixels
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.views import ViewPlan, resize_view


@dataclass(frozen=True)
class ViewFeatures:
    """Features of the views of videos, both from one forward pass.

    Attributes:
        joint: In CLIP's joint space, unit length, float32: for text.
        pooled: Before the projection, not normalised, float32: for probes.
    """

    joint: Float[Tensor, "videos views embedding"]
    pooled: Float[Tensor, "videos views tower"]

    def select(self, rows: Sequence[int]) -> "ViewFeatures":
        """Some videos, in the given order."""
        index = torch.tensor(rows, dtype=torch.long)
        return ViewFeatures(joint=self.joint[index], pooled=self.pooled[index])


def join_features(parts: Sequence[ViewFeatures]) -> ViewFeatures:
    """The videos of several parts, one after the other."""
    return ViewFeatures(
        joint=torch.cat([part.joint for part in parts]),
        pooled=torch.cat([part.pooled for part in parts]),
    )


@dataclass(frozen=True)
class FeatureTable:
    """Features of a manifest's videos under several encoders.

    Attributes:
        video_ids: The videos that decoded, in manifest order.
        features: Encoder name, then name of the view, to features in the order of `video_ids`;
            empty when none decoded.
        failures: The videos that did not decode.
    """

    video_ids: tuple[str, ...]
    features: Mapping[str, Mapping[str, ViewFeatures]]
    failures: tuple[ClipFailure, ...]

    def joint(self, encoder: str) -> Float[Tensor, "videos views embedding"]:
        """Joint-space features of the ordinary (slow) view."""
        return self.features[encoder][SLOW].joint


def decode_views(
    process: DecodeProcess, record: VideoRecord, views: Sequence[EvaluationView]
) -> list[UInt8[np.ndarray, "views frames size size 3"]] | ClipFailure:
    """All views of one video from one decoding, an array per entry of `views`; or why not."""

    def plan(height: int, width: int) -> list[ViewPlan]:
        return [
            one
            for view in views
            for one in plan_evaluation_views(
                view, num_frames=record.num_frames, height=height, width=width
            )
        ]

    try:
        cuts = process.cut(
            record.path, plan, reader=record.reader, size=(record.height, record.width)
        )
    except DecodeError as error:
        return ClipFailure(
            video_id=record.video_id,
            path=record.path,
            reason=error.reason,
            detail=error.detail,
            seconds=round(error.seconds, 3),
            epoch=0,
        )
    resized = (resize_view(pictures, size=one.size) for one, pictures in cuts)
    return [np.stack(list(islice(resized, view.num_views))) for view in views]


def decode_view(
    process: DecodeProcess, record: VideoRecord, view: EvaluationView
) -> UInt8[np.ndarray, "frames size size 3"] | ClipFailure:
    """The first view of one video (its only one, with one clip and one crop), or why not."""
    decoded = decode_views(process, record, [view])
    return decoded if isinstance(decoded, ClipFailure) else decoded[0][0]


@torch.inference_mode()
def encode_views(
    encoder: VideoEncoder,
    frames: UInt8[Tensor, "videos frames size size 3"],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "videos embedding"]:
    """Unit-length features of decoded views, on the encoder's device."""
    pixels = to_pixels(frames, mean=mean, std=std)  # [B, T, 3, H, W]
    features: Tensor = encoder(pixels)
    return features


@torch.inference_mode()
def encode_view_features(
    encoder: VideoEncoder,
    frames: UInt8[Tensor, "videos views frames size size 3"],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> ViewFeatures:
    """Both features of decoded views from one forward pass, on the CPU."""
    pixels = to_pixels(frames.flatten(0, 1), mean=mean, std=std)  # [B*V, T, 3, H, W]
    cls = encoder.encode_cls(pixels)  # [B*V, T or 1, D]
    split = frames.shape[:2]
    return ViewFeatures(
        joint=encoder.project_cls(cls).unflatten(0, split).cpu(),
        pooled=encoder.pool_cls(cls).unflatten(0, split).cpu(),
    )
