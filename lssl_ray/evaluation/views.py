"""Where an evaluation looks at a video: temporal clips x spatial crops, planned by numbers alone.

::

    video   0 ................................................. num_frames
    clips     [----- 0 -----][----- 1 -----][----- 2 -----]     consecutive, of equal length
    crops     left / centre / right of a wide picture, top / centre / bottom of a tall one

One clip spans the whole video and one crop is the largest centred square: CLIP's own view. No
randomness, no pixels: `DecodeProcess.cut` cuts what is planned here.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from lssl_ray.video.cuts import Crop
from lssl_ray.video.sampling import Window, compute_frame_indices
from lssl_ray.video.views import ViewPlan, neutral_augmentation

# To be raised with every change that moves a pixel: features kept before it are made again.
VIEW_ARITHMETIC_VERSION = 1
FAST_FRAMES, FAST_SIZE = 64, 96
SLOW, FAST = "slow", "fast"


@dataclass(frozen=True)
class EvaluationView:
    """How a video is looked at.

    Attributes:
        num_frames: Frames per temporal clip, evenly over it.
        size: Height and width, px.
        num_clips: Temporal clips: consecutive stretches of equal length that cover the video.
        num_crops: 1, the largest centred square, or 3 such squares along the longer side.
    """

    num_frames: int
    size: int
    num_clips: int = 1
    num_crops: Literal[1, 3] = 1

    @property
    def num_views(self) -> int:
        """Views per video."""
        return self.num_clips * self.num_crops

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)


def build_fast_view(slow: EvaluationView, *, patch_size: int) -> EvaluationView:
    """SVT's fast clip beside a slow one: 64 frames of about 96 px, a multiple of the patch size."""
    size = max(1, round(FAST_SIZE / patch_size)) * patch_size
    return EvaluationView(FAST_FRAMES, size, slow.num_clips, slow.num_crops)


def plan_evaluation_views(
    view: EvaluationView, *, num_frames: int, height: int, width: int
) -> list[ViewPlan]:
    """All views of one video, the crops of the first clip first.

    Args:
        view: How to look.
        num_frames: Frames of the video that really decode, >= 1.
        height: Picture height, px.
        width: Picture width, px.
    """
    return [
        ViewPlan(
            frame_indices=compute_frame_indices(window, num_frames=view.num_frames),
            crop=crop,
            size=view.size,
            augmentation=neutral_augmentation(),
        )
        for window in compute_clip_windows(num_frames, num_clips=view.num_clips)
        for crop in compute_crops(height=height, width=width, num_crops=view.num_crops)
    ]


def compute_clip_windows(num_frames: int, *, num_clips: int) -> list[Window]:
    """Consecutive stretches of equal length; a video with fewer frames gives some repeatedly."""
    edges = [index * num_frames // num_clips for index in range(num_clips + 1)]
    return [
        Window(start=min(start, num_frames - 1), length=max(1, end - start))
        for start, end in pairwise(edges)
    ]


def compute_crops(*, height: int, width: int, num_crops: Literal[1, 3]) -> list[Crop]:
    """The largest squares of a picture: the centred one, or both ends and the centre."""
    side = min(height, width)
    spare = max(height, width) - side
    offsets = [spare // 2] if num_crops == 1 else [0, spare // 2, spare]
    if width >= height:
        return [Crop(0, offset, side, side) for offset in offsets]
    return [Crop(offset, 0, side, side) for offset in offsets]
