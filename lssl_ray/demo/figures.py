"""A two-dimensional stick figure: pose, skeleton, props and how they are drawn.

This is the geometry only. It knows no actions (see `actions`), no backgrounds or cameras beyond a
scale and an offset (see `looks`), and no randomness: the same arguments give the same pixels.

Conventions: body coordinates are complex numbers, real part forward, imaginary part up, in units
of standing body height with the floor at 0. A limb angle is absolute, in degrees: 0 points down,
90 forward, 180 up, -90 backward. In a frontal view "forward" is one side of the picture.
"""

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from PIL import Image, ImageDraw

__all__ = [
    "Body",
    "Camera",
    "Color",
    "Joints",
    "Palette",
    "Pose",
    "Prop",
    "blend_poses",
    "compute_joints",
    "draw_scene",
]

Color = tuple[int, int, int]
Anchor = Literal["feet", "pelvis"]
PropKind = Literal["ball", "box", "chair", "barbell", "rope", "bag"]

SUPERSAMPLE = 2  # drawn this many times larger than shown, then averaged: antialiasing


class Pose(NamedTuple):
    """Limb angles in degrees, and the height of the whole figure above the floor."""

    torso: float = 180.0
    near_upper_arm: float = 5.0
    near_forearm: float = 5.0
    far_upper_arm: float = -5.0
    far_forearm: float = -5.0
    near_thigh: float = 4.0
    near_shin: float = 0.0
    far_thigh: float = -4.0
    far_shin: float = 0.0
    lift: float = 0.0


@dataclass(frozen=True)
class Body:
    """Proportions of one person, in units of a standard body height."""

    torso: float = 0.33
    upper_arm: float = 0.17
    forearm: float = 0.16
    thigh: float = 0.24
    shin: float = 0.24
    head_radius: float = 0.075
    thickness: float = 0.05


@dataclass(frozen=True)
class Joints:
    """Where the joints are, as complex body coordinates; pairs are (near, far)."""

    pelvis: complex
    neck: complex
    head: complex
    elbows: tuple[complex, complex]
    hands: tuple[complex, complex]
    knees: tuple[complex, complex]
    feet: tuple[complex, complex]


@dataclass(frozen=True)
class Prop:
    """One object of the scene: `points` are body coordinates whose meaning depends on `kind`.

    ball: centre. box: centre of the box. chair: middle of the seat. barbell: middle of the bar.
    rope: points along it. bag: top and middle. `size` is a radius or half width, `angle` the
    tilt in degrees.
    """

    kind: PropKind
    points: tuple[complex, ...]
    size: float
    angle: float = 0.0


@dataclass(frozen=True)
class Palette:
    """RGB colours, 0-255, of what is drawn."""

    near: Color
    far: Color
    head: Color
    prop: Color


@dataclass(frozen=True)
class Camera:
    """From body coordinates to picture coordinates.

    Attributes:
        scale: pixels per body height.
        origin_x: pixel column of horizontal position 0.
        floor_y: pixel row of the floor.
        mirrored: whether forward points left.
    """

    scale: float
    origin_x: float
    floor_y: float
    mirrored: bool

    def project(self, point: complex) -> tuple[float, float]:
        """Return the (x, y) pixel, y down, of a point in body coordinates."""
        side = -point.real if self.mirrored else point.real
        return self.origin_x + self.scale * side, self.floor_y - self.scale * point.imag


def compute_direction(angle: float) -> complex:
    """Return the unit vector of a limb angle in degrees (0 down, 90 forward, 180 up)."""
    radians = math.radians(angle)
    return complex(math.sin(radians), -math.cos(radians))


def blend_poses(first: Pose, second: Pose, *, amount: float) -> Pose:
    """Return the pose between two others.

    Args:
        first: the pose at amount 0.
        second: the pose at amount 1.
        amount: the share of `second`; values outside [0, 1] extrapolate.
    """
    return Pose(*(a + (b - a) * amount for a, b in zip(first, second, strict=True)))


def compute_joints(pose: Pose, *, body: Body, anchor: Anchor = "feet") -> Joints:
    """Place the skeleton so that its lowest part rests on the floor.

    Args:
        pose: limb angles in degrees.
        body: limb lengths.
        anchor: what is held at horizontal position 0: the middle of the feet, or the pelvis.
    """
    neck = body.torso * compute_direction(pose.torso)
    head = neck + (body.head_radius * 1.35) * compute_direction(pose.torso)
    elbows = (
        neck + body.upper_arm * compute_direction(pose.near_upper_arm),
        neck + body.upper_arm * compute_direction(pose.far_upper_arm),
    )
    hands = (
        elbows[0] + body.forearm * compute_direction(pose.near_forearm),
        elbows[1] + body.forearm * compute_direction(pose.far_forearm),
    )
    knees = (
        body.thigh * compute_direction(pose.near_thigh),
        body.thigh * compute_direction(pose.far_thigh),
    )
    feet = (
        knees[0] + body.shin * compute_direction(pose.near_shin),
        knees[1] + body.shin * compute_direction(pose.far_shin),
    )
    lowest = min(
        *(point.imag for point in (*hands, *elbows, *knees, *feet)),
        head.imag - body.head_radius,
        -0.5 * body.thickness,
    )
    anchor_x = 0.5 * (feet[0] + feet[1]).real if anchor == "feet" else 0.0
    shift = complex(-anchor_x, pose.lift + 0.5 * body.thickness - lowest)
    return Joints(
        pelvis=shift,
        neck=neck + shift,
        head=head + shift,
        elbows=(elbows[0] + shift, elbows[1] + shift),
        hands=(hands[0] + shift, hands[1] + shift),
        knees=(knees[0] + shift, knees[1] + shift),
        feet=(feet[0] + shift, feet[1] + shift),
    )


class _Pen:
    """Draws in body coordinates on a supersampled canvas."""

    def __init__(self, canvas: Image.Image, *, camera: Camera) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._camera = camera
        self._unit = camera.scale * SUPERSAMPLE

    def _place(self, point: complex) -> tuple[float, float]:
        x, y = self._camera.project(point)
        return x * SUPERSAMPLE, y * SUPERSAMPLE

    def disk(self, center: complex, *, radius: float, color: Color) -> None:
        x, y = self._place(center)
        pixels = max(radius * self._unit, 0.8)
        self._draw.ellipse((x - pixels, y - pixels, x + pixels, y + pixels), fill=color)

    def stroke(self, points: Sequence[complex], *, width: float, color: Color) -> None:
        pixels = max(round(width * self._unit), 2)
        self._draw.line([self._place(p) for p in points], fill=color, width=pixels, joint="curve")

    def limb(self, points: Sequence[complex], *, width: float, color: Color) -> None:
        self.stroke(points, width=width, color=color)
        for point in points:
            self.disk(point, radius=0.5 * width, color=color)

    def polygon(self, points: Sequence[complex], *, color: Color, edge: Color) -> None:
        self._draw.polygon([self._place(p) for p in points], fill=color, outline=edge)


def _compute_shade(color: Color, *, factor: float) -> Color:
    red, green, blue = (min(255, max(0, int(channel * factor))) for channel in color)
    return red, green, blue


def _draw_prop(pen: _Pen, prop: Prop, *, color: Color, thickness: float) -> None:
    size, dark = prop.size, _compute_shade(color, factor=0.55)
    place = prop.points[0]
    if prop.kind == "ball":
        pen.disk(place, radius=size, color=dark)
        pen.disk(place, radius=0.75 * size, color=color)
    elif prop.kind == "box":
        turn = cmath.rect(size, math.radians(prop.angle))
        corners = [place + turn * corner for corner in (1 + 0.8j, -1 + 0.8j, -1 - 0.8j, 1 - 0.8j)]
        pen.polygon(corners, color=color, edge=dark)
        pen.stroke((place + turn * 0.8j, place - turn * 0.8j), width=0.02, color=dark)
    elif prop.kind == "chair":
        left, right = place - size, place + size
        pen.stroke((left + 2.4j * size, left - 1j * place.imag), width=0.035, color=color)
        pen.stroke((right, right - 1j * place.imag), width=0.035, color=color)
        pen.stroke((left, right), width=0.05, color=color)
    elif prop.kind == "barbell":
        along = cmath.rect(size, math.radians(prop.angle))
        pen.stroke((place - along, place + along), width=0.022, color=color)
        for end in (place - 0.85 * along, place + 0.85 * along):
            pen.stroke((end - 0.11j, end + 0.11j), width=0.065, color=color)
    elif prop.kind == "rope":
        pen.stroke(prop.points, width=0.4 * thickness, color=color)
    else:
        top, middle = prop.points
        along = (top - middle) / abs(top - middle)
        pen.stroke((top, middle), width=0.02, color=dark)
        pen.limb((middle + 0.17 * along, middle - 0.17 * along), width=2 * size, color=color)


def draw_scene(
    canvas: Image.Image,
    *,
    joints: Joints,
    props: Sequence[Prop],
    body: Body,
    palette: Palette,
    camera: Camera,
) -> None:
    """Draw props and figure over what the canvas already shows, in place.

    Args:
        canvas: RGB picture, SUPERSAMPLE times the size that `camera` speaks of.
        joints: the placed skeleton.
        props: objects; chairs and bags go behind the figure, all others in front of it.
        body: thickness and head size.
        palette: colours, lighting already applied.
        camera: scale and position in shown (not supersampled) pixels.
    """
    pen = _Pen(canvas, camera=camera)
    for prop in props:
        if prop.kind in ("chair", "bag"):
            _draw_prop(pen, prop, color=palette.prop, thickness=body.thickness)
    width = body.thickness
    pen.limb((joints.neck, joints.elbows[1], joints.hands[1]), width=width, color=palette.far)
    pen.limb((joints.pelvis, joints.knees[1], joints.feet[1]), width=width, color=palette.far)
    pen.limb((joints.pelvis, joints.neck), width=1.35 * width, color=palette.near)
    pen.limb((joints.pelvis, joints.knees[0], joints.feet[0]), width=width, color=palette.near)
    pen.disk(joints.head, radius=body.head_radius, color=palette.head)
    for prop in props:
        if prop.kind not in ("chair", "bag"):
            _draw_prop(pen, prop, color=palette.prop, thickness=width)
    pen.limb((joints.neck, joints.elbows[0], joints.hands[0]), width=width, color=palette.near)
