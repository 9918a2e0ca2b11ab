"""What decides the clips of a run besides the videos: which views, and how files are opened.

Plain values, without torch: processes that only hand them on start seconds sooner.
"""

from dataclasses import dataclass

from lssl_ray.video.isolation import CHILD_MODULE


@dataclass(frozen=True)
class ViewKind:
    """How one kind of view is cut.

    Attributes:
        count: Views of this kind per clip, >= 0.
        num_frames: Frames per view.
        size: Height and width, px.
        area: Smallest and largest share of the picture that a crop covers, in (0, 1].
        window_share: Share of the clip's window that the frames span, in (0, 1].
    """

    count: int
    num_frames: int
    size: int
    area: tuple[float, float]
    window_share: float


@dataclass(frozen=True)
class ViewRecipe:
    """Everything that decides a clip's views besides the video itself.

    Attributes:
        global_views: Seen by student and teacher.
        local_views: Seen by the student only.
        window_seconds: Length of the stretch of video that one clip looks at.
        flip_probability: Chance of a mirrored view.
        jitter_probability: Chance of changed brightness, contrast and saturation.
        jitter_strength: Largest relative change of brightness, contrast, saturation.
        grey_probability: Chance of a grey view.
    """

    global_views: ViewKind
    local_views: ViewKind
    window_seconds: float
    flip_probability: float
    jitter_probability: float
    jitter_strength: tuple[float, float, float]
    grey_probability: float

    @property
    def num_views(self) -> int:
        """Views per clip, global and local."""
        return self.global_views.count + self.local_views.count


@dataclass(frozen=True)
class DecodeSettings:
    """How videos are opened.

    Attributes:
        deadline_seconds: Longest time one video may take; then its decoder is killed.
        recycle_after: Videos after which a decoder process is replaced, to bound leaked memory.
        short_side: Frames whose short side is larger are decoded at this size, px.
        memory_limit_mib: Memory a decoder process may take beyond its start; None for no limit.
        child_module: Module run as the decoder process; see `DecodeProcess`.
    """

    deadline_seconds: float
    recycle_after: int
    short_side: int
    memory_limit_mib: int | None = None
    child_module: str = CHILD_MODULE
