"""The domain shift of the demo world, as two sets of numbers.

Stills (what the tiny CLIP learns from) and videos (what it must then cope with) are painted by the
same code in `looks`; only their `Conditions` differ. Values only, no drawing.
"""

from dataclasses import dataclass

from lssl_ray.demo.figures import Color

__all__ = ["COLORS", "STILL", "VIDEO", "Conditions", "Range"]

COLORS: dict[str, Color] = {
    "red": (205, 45, 40),
    "green": (50, 150, 60),
    "blue": (45, 75, 195),
    "yellow": (235, 205, 60),
    "orange": (235, 130, 35),
    "purple": (125, 55, 160),
    "black": (25, 25, 28),
    "white": (242, 242, 240),
    "gray": (128, 128, 130),
    "brown": (110, 75, 45),
}

Range = tuple[float, float]


@dataclass(frozen=True)
class Conditions:
    """Ranges from which the look of a scene is drawn; uniform unless said otherwise.

    Attributes:
        figure_scale: standing body height as a share of the picture's short side.
        offset: largest displacement of the figure, same unit.
        contrast: factor around middle gray.
        brightness: factor on all channels.
        color_cast: largest relative deviation of one channel's gain.
        color_distance: smallest RGB distance of figure and background before lighting.
        pale_share: chance of a pale background, on which the figure is the darker of the two.
        noise_sigma: standard deviation of pixel noise, in 0-255 units.
        num_clutter: lines and shapes painted on the background.
        num_distractors: shapes that move through the scene, a third of them in front.
        thickness: limb thickness in body heights.
        pose_jitter: standard deviation of each limb angle's constant deviation, degrees.
        shake: camera shake amplitude as a share of the short side.
        backgrounds: kinds to choose from with equal chance.
    """

    figure_scale: Range
    offset: float
    contrast: Range
    brightness: Range
    color_cast: float
    color_distance: float
    pale_share: float
    noise_sigma: Range
    num_clutter: tuple[int, int]
    num_distractors: tuple[int, int]
    thickness: Range
    pose_jitter: float
    shake: float
    backgrounds: tuple[str, ...]


STILL = Conditions(
    figure_scale=(0.64, 0.78),
    offset=0.03,
    contrast=(0.9, 1.0),
    brightness=(0.95, 1.05),
    color_cast=0.03,
    color_distance=150.0,
    pale_share=0.85,
    noise_sigma=(0.0, 4.0),
    num_clutter=(0, 1),
    num_distractors=(0, 0),
    thickness=(0.05, 0.065),
    pose_jitter=3.0,
    shake=0.0,
    backgrounds=("plain", "gradient", "floor"),
)

VIDEO = Conditions(
    figure_scale=(0.48, 0.80),
    offset=0.09,
    contrast=(0.5, 1.0),
    brightness=(0.55, 1.1),
    color_cast=0.18,
    color_distance=105.0,
    pale_share=0.65,
    noise_sigma=(2.0, 16.0),
    num_clutter=(0, 7),
    num_distractors=(0, 2),
    thickness=(0.037, 0.073),
    pose_jitter=5.5,
    shake=0.015,
    backgrounds=("plain", "gradient", "floor", "texture", "stripes"),
)
