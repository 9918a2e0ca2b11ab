"""Views of a clip: planned by numbers alone, then cut from decoded frames as uint8.

After SVT (https://arxiv.org/abs/2112.01514): a few long, large global views and several short,
small local ones, each with one random draw for all of its frames. Crop and resize happen here on
the CPU; flip and colour are only drawn here and applied on the training device
(`training/augment.py`).

Randomness is a pure function of (seed, epoch, video id, view): whichever worker decodes a clip,
and in whatever order, its views are the same.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from lssl_ray.types import (
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    GREY,
    NUM_AUGMENTATION_VALUES,
    SATURATION,
)
from lssl_ray.video.cuts import Crop, Cut
from lssl_ray.video.recipe import ViewRecipe
from lssl_ray.video.sampling import (
    Window,
    compute_frame_indices,
    compute_sub_window,
    compute_window,
)

_VIEW_STREAM = 1  # keeps the views' random numbers apart from the shuffle's
_CROP_TRIES = 10


@dataclass(frozen=True)
class ViewPlan(Cut):
    """One view before any pixel is read: a cut, its size in the end, its augmentation."""

    size: int
    augmentation: Float32[np.ndarray, "values"]


def build_rng(*, seed: int, epoch: int, video_id: str, view: int) -> np.random.Generator:
    """The random numbers of one view of one visit; view 0 is the clip's window."""
    key = int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng([seed, _VIEW_STREAM, epoch, key, view])


def plan_views(
    recipe: ViewRecipe,
    *,
    num_frames: int,
    fps: float,
    height: int,
    width: int,
    seed: int,
    epoch: int,
    video_id: str,
) -> list[ViewPlan]:
    """Draw all views of one visit, global ones first.

    Args:
        recipe: Counts, sizes and chances.
        num_frames: Frames of the video that really decode, >= 1.
        fps: Frames per second, > 0.
        height: Picture height, px.
        width: Picture width, px.
        seed: Seed of the run.
        epoch: Which visit of this video it is.
        video_id: The manifest's id.
    """
    rng = build_rng(seed=seed, epoch=epoch, video_id=video_id, view=0)
    window = compute_window(num_frames, fps, seconds=recipe.window_seconds, offset=rng.random())
    kinds = [recipe.global_views] * recipe.global_views.count
    kinds += [recipe.local_views] * recipe.local_views.count
    plans = []
    for view, kind in enumerate(kinds, start=1):
        rng = build_rng(seed=seed, epoch=epoch, video_id=video_id, view=view)
        sub_window = compute_sub_window(window, share=kind.window_share, offset=rng.random())
        plans.append(
            ViewPlan(
                frame_indices=compute_frame_indices(sub_window, num_frames=kind.num_frames),
                crop=draw_crop(rng, height=height, width=width, area=kind.area),
                size=kind.size,
                augmentation=draw_augmentation(rng, recipe),
            )
        )
    return plans


def plan_center_view(
    *, num_frames: int, frames_per_view: int, size: int, height: int, width: int
) -> ViewPlan:
    """CLIP's own evaluation view: frames evenly over the whole video, largest centred square."""
    side = min(height, width)
    return ViewPlan(
        frame_indices=compute_frame_indices(Window(0, num_frames), num_frames=frames_per_view),
        crop=Crop((height - side) // 2, (width - side) // 2, side, side),
        size=size,
        augmentation=neutral_augmentation(),
    )


def draw_crop(
    rng: np.random.Generator, *, height: int, width: int, area: tuple[float, float]
) -> Crop:
    """A random crop of a share of the picture, aspect ratio in [3/4, 4/3] (log-uniform).

    When no draw fits (very long or narrow pictures), the largest centred crop within these aspect
    ratios.
    """
    for _ in range(_CROP_TRIES):
        pixels = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width = max(1, round(math.sqrt(pixels * aspect)))
        crop_height = max(1, round(math.sqrt(pixels / aspect)))
        if crop_width <= width and crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return Crop(top, left, crop_height, crop_width)
    crop_width = max(1, min(width, round(height * 4 / 3)))
    crop_height = max(1, min(height, round(width * 4 / 3)))
    return Crop((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def draw_augmentation(
    rng: np.random.Generator, recipe: ViewRecipe
) -> Float32[np.ndarray, "values"]:
    """Flip, brightness, contrast, saturation and grey of one view."""
    values = neutral_augmentation()
    values[FLIP] = rng.random() < recipe.flip_probability
    jitters = rng.random() < recipe.jitter_probability
    factors = [rng.uniform(max(0.0, 1 - s), 1 + s) for s in recipe.jitter_strength]
    if jitters:
        values[BRIGHTNESS], values[CONTRAST], values[SATURATION] = factors
    values[GREY] = rng.random() < recipe.grey_probability
    return values


def neutral_augmentation() -> Float32[np.ndarray, "values"]:
    """Values that change nothing."""
    values = np.zeros(NUM_AUGMENTATION_VALUES, dtype=np.float32)
    values[[BRIGHTNESS, CONTRAST, SATURATION]] = 1.0
    return values


def resize_view(
    pictures: UInt8[np.ndarray, "frames height width 3"],
    *,
    size: int,
    out: UInt8[np.ndarray, "frames size size 3"] | None = None,
) -> UInt8[np.ndarray, "frames size size 3"]:
    """Resize what was cut from a clip's frames to a view: bicubic, antialiased.

    Args:
        pictures: RGB in [0, 255].
        size: Height and width of the view, px.
        out: Where to put it; None for an array of its own.
    """
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)  # [T, 3, h, w], channels last in memory
    resized: torch.Tensor = transforms.resize(
        pixels, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    view: np.ndarray = resized.permute(0, 2, 3, 1).numpy()
    if out is None:
        return np.ascontiguousarray(view)
    np.copyto(out, view)
    return out
