"""Features of whole videos: one centred view each, through one or several encoders.

A video that does not decode has no features; it is excluded from every figure and listed by
reason, never replaced and never counted as wrong or right.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lssl_ray.model.pixels import to_pixels
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeError, DecodeProcess
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.views import ViewPlan, compute_needed_frames, cut_view, plan_center_view


@dataclass(frozen=True)
class EvaluationView:
    """How a video is looked at: frames evenly over its length, largest centred square.

    Attributes:
        num_frames: Frames per video.
        size: Height and width, px.
    """

    num_frames: int
    size: int


@dataclass(frozen=True)
class FeatureTable:
    """Features of a manifest's videos under several encoders.

    Attributes:
        video_ids: The videos that decoded, in manifest order.
        features: Encoder name to unit-length rows, float32, in the order of `video_ids`.
        failures: The videos that did not decode.
    """

    video_ids: tuple[str, ...]
    features: Mapping[str, Float[Tensor, "videos embedding"]]
    failures: tuple[ClipFailure, ...]


def decode_view(
    process: DecodeProcess, record: VideoRecord, view: EvaluationView
) -> UInt8[np.ndarray, "frames size size 3"] | ClipFailure:
    """One video's evaluation view, or why there is none."""

    def plan(height: int, width: int) -> ViewPlan:
        return plan_center_view(
            num_frames=record.num_frames,
            frames_per_view=view.num_frames,
            size=view.size,
            height=height,
            width=width,
        )

    needed = compute_needed_frames([plan(record.height, record.width)])
    try:
        frames = process.frames(record.path, needed.tolist(), reader=record.reader)
    except DecodeError as error:
        return ClipFailure(
            video_id=record.video_id,
            path=record.path,
            reason=error.reason,
            detail=error.detail,
            seconds=round(error.seconds, 3),
            epoch=0,
        )
    return cut_view(frames, needed, plan(*frames.shape[1:3]))


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
