"""How a scene of the demo world looks: place, light, camera, noise; and how one frame is painted.

Ranges come from `conditions`, backdrops from `backgrounds`. Nothing here knows labels, files or
captions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lssl_ray.demo.actions import Action, compute_pose, compute_props
from lssl_ray.demo.backgrounds import build_background, choose_colors, paint_clutter, vary_color
from lssl_ray.demo.conditions import COLORS, Conditions, Range
from lssl_ray.demo.figures import (
    SUPERSAMPLE,
    Body,
    Camera,
    Color,
    Joints,
    Palette,
    Pose,
    Prop,
    compute_joints,
    draw_scene,
)

__all__ = ["Frame", "Look", "build_look", "paint_frame"]

_MARGIN = 0.12  # spare background on each side for camera motion, as a share of the short side


@dataclass(frozen=True)
class _Distractor:
    start: complex  # share of the short side, from the picture's middle
    velocity: complex  # shares per second
    size: float
    color: Color
    in_front: bool
    is_round: bool


@dataclass(frozen=True)
class Look:
    """Everything about one scene that stays the same over its frames.

    Attributes:
        width: picture width in pixels.
        height: picture height in pixels.
        figure_color: name in `COLORS` of the figure.
        prop_color: name in `COLORS` of the objects.
        background_color: name in `COLORS` of the background's main colour.
        background_kind: one of the conditions' kinds.
        figure_scale: standing body height as a share of the short side.
    """

    width: int
    height: int
    figure_color: str
    prop_color: str
    background_color: str
    background_kind: str
    figure_scale: float
    body: Body
    palette: Palette
    camera: Camera
    background: Image.Image
    pose_offset: Pose
    noise: NDArray[np.int16]
    distractors: tuple[_Distractor, ...]
    shake_pixels: float
    shake_phases: tuple[float, float, float]


@dataclass(frozen=True)
class Frame:
    """One painted picture and what is in it.

    Attributes:
        pixels: uint8 [height, width, 3] RGB.
        pose: limb angles drawn, the person's own deviation included.
        joints: the placed skeleton.
        props: objects drawn.
    """

    pixels: NDArray[np.uint8]
    pose: Pose
    joints: Joints
    props: tuple[Prop, ...]


def _sample(rng: np.random.Generator, limits: Range) -> float:
    return float(rng.uniform(limits[0], limits[1]))


def _build_lighting(
    rng: np.random.Generator, *, conditions: Conditions
) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    contrast = _sample(rng, conditions.contrast)
    gains = _sample(rng, conditions.brightness) * (
        1.0 + rng.uniform(-conditions.color_cast, conditions.color_cast, size=3)
    )

    def light(colors: NDArray[Any]) -> NDArray[np.uint8]:
        lit = (128.0 + contrast * (colors.astype(np.float32) - 128.0)) * gains
        return np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)

    return light


def _as_color(values: NDArray[np.uint8]) -> Color:
    return int(values[0]), int(values[1]), int(values[2])


def _sample_distractors(
    rng: np.random.Generator, *, limits: tuple[int, int], light: Callable[..., NDArray[np.uint8]]
) -> tuple[_Distractor, ...]:
    return tuple(
        _Distractor(
            start=complex(rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)),
            velocity=complex(rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.1)),
            size=float(rng.uniform(0.02, 0.07)),
            color=_as_color(light(rng.uniform(0, 255, size=3))),
            in_front=bool(rng.random() < 1 / 3),
            is_round=bool(rng.random() < 0.5),
        )
        for _ in range(int(rng.integers(limits[0], limits[1] + 1)))
    )


def _sample_palette(
    rng: np.random.Generator, *, figure: Color, prop: Color, light: Callable[..., NDArray[np.uint8]]
) -> Palette:
    near = vary_color(rng, figure)
    far_factor, head_shift = rng.uniform(0.6, 0.95), rng.uniform(-25, 25, size=3)
    return Palette(
        near=_as_color(light(near)),
        far=_as_color(light(near * far_factor)),
        head=_as_color(light(np.clip(near + head_shift, 0, 255))),
        prop=_as_color(light(vary_color(rng, prop))),
    )


def _sample_body(rng: np.random.Generator, *, conditions: Conditions) -> Body:
    stretch = rng.uniform(0.92, 1.08, size=5)
    return Body(
        torso=0.33 * stretch[0],
        upper_arm=0.17 * stretch[1],
        forearm=0.16 * stretch[1],
        thigh=0.24 * stretch[2],
        shin=0.24 * stretch[3],
        head_radius=0.075 * stretch[4],
        thickness=_sample(rng, conditions.thickness),
    )


def _build_lit_background(
    rng: np.random.Generator,
    *,
    conditions: Conditions,
    kind: str,
    color: Color,
    camera: Camera,
    size: tuple[int, int],
    light: Callable[..., NDArray[np.uint8]],
) -> Image.Image:
    """Return the supersampled backdrop of a picture of `size`, with a margin on each side."""
    width, height = size
    margin = 2 * math.ceil(_MARGIN * min(size))
    full = (SUPERSAMPLE * width + 2 * margin, SUPERSAMPLE * height + 2 * margin)
    floor = (camera.floor_y * SUPERSAMPLE + margin - 0.05 * min(size)) / full[1]
    background = build_background(rng, kind=kind, color=color, size=full, floor=floor)
    low, high = conditions.num_clutter
    paint_clutter(rng, background, count=int(rng.integers(low, high + 1)))
    return Image.fromarray(light(np.asarray(background)))


def build_look(
    rng: np.random.Generator, *, conditions: Conditions, width: int, height: int
) -> Look:
    """Draw the look of one scene.

    Args:
        rng: source of every choice.
        conditions: ranges to draw from.
        width: picture width in pixels.
        height: picture height in pixels.
    """
    light = _build_lighting(rng, conditions=conditions)
    figure, prop, back, back_color = choose_colors(rng, conditions=conditions)
    palette = _sample_palette(rng, figure=COLORS[figure], prop=COLORS[prop], light=light)
    body = _sample_body(rng, conditions=conditions)
    short = min(width, height)
    scale = _sample(rng, conditions.figure_scale)
    drift = rng.uniform(-conditions.offset, conditions.offset, size=2) * short
    camera = Camera(
        scale=scale * short,
        origin_x=width / 2 + drift[0],
        floor_y=height / 2 + (0.5 * scale + 0.05) * short + drift[1],
        mirrored=bool(rng.random() < 0.5),
    )
    kind = conditions.backgrounds[int(rng.integers(len(conditions.backgrounds)))]
    background = _build_lit_background(
        rng, conditions=conditions, kind=kind, color=back_color, camera=camera,
        size=(width, height), light=light,
    )  # fmt: skip
    sigma = _sample(rng, conditions.noise_sigma)
    # One tile, shifted at random per frame: fresh noise costs more than drawing the figure does.
    noise = rng.normal(0, sigma, size=(height + 16, width + 16, 3)).astype(np.int16)
    return Look(
        width=width,
        height=height,
        figure_color=figure,
        prop_color=prop,
        background_color=back,
        background_kind=kind,
        figure_scale=scale,
        body=body,
        palette=palette,
        camera=camera,
        background=background,
        pose_offset=Pose(*(float(v) for v in rng.normal(0, conditions.pose_jitter, size=9))),
        noise=noise,
        distractors=_sample_distractors(rng, limits=conditions.num_distractors, light=light),
        shake_pixels=float(rng.uniform(0, conditions.shake)) * short,
        shake_phases=(rng.uniform(0, 6.3), rng.uniform(0, 6.3), rng.uniform(2, 9)),
    )


def _paint_distractors(canvas: Image.Image, *, look: Look, seconds: float, in_front: bool) -> None:
    draw = ImageDraw.Draw(canvas)
    short = min(look.width, look.height) * SUPERSAMPLE
    for item in look.distractors:
        if item.in_front is in_front:
            place = (item.start + seconds * item.velocity) * short
            x, y = place.real + canvas.width / 2, place.imag + canvas.height / 2
            radius = item.size * short
            box = (x - radius, y - radius, x + radius, y + radius)
            (draw.ellipse if item.is_round else draw.rectangle)(box, fill=item.color)


def paint_frame(
    action: Action, *, look: Look, phase: float, seconds: float, rng: np.random.Generator
) -> Frame:
    """Paint one picture.

    Args:
        action: what the figure does.
        look: how the scene looks.
        phase: where in the action.
        seconds: time since the scene began, for camera and distractors.
        rng: source of the frame's noise.
    """
    pose = compute_pose(action, phase=phase)
    pose = Pose(*(angle + extra for angle, extra in zip(pose, look.pose_offset, strict=True)))
    joints = compute_joints(pose, body=look.body, anchor=action.anchor)
    props = compute_props(action, phase=phase, joints=joints)
    first, second, pace = look.shake_phases
    shake_x = look.shake_pixels * math.sin(first + pace * seconds)
    shake_y = look.shake_pixels * math.sin(second + 0.8 * pace * seconds)
    width, height = SUPERSAMPLE * look.width, SUPERSAMPLE * look.height
    left = round((look.background.width - width) / 2 - SUPERSAMPLE * shake_x)
    top = round((look.background.height - height) / 2 - SUPERSAMPLE * shake_y)
    canvas = look.background.crop((left, top, left + width, top + height))
    camera = Camera(
        scale=look.camera.scale,
        origin_x=look.camera.origin_x + shake_x,
        floor_y=look.camera.floor_y + shake_y,
        mirrored=look.camera.mirrored,
    )
    _paint_distractors(canvas, look=look, seconds=seconds, in_front=False)
    draw_scene(
        canvas, joints=joints, props=props, body=look.body, palette=look.palette, camera=camera
    )
    _paint_distractors(canvas, look=look, seconds=seconds, in_front=True)
    pixels = np.asarray(canvas.reduce(SUPERSAMPLE))
    y, x = (int(value) for value in rng.integers(0, 17, size=2))
    noisy = pixels + look.noise[y : y + look.height, x : x + look.width]
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return Frame(pixels=pixels, pose=pose, joints=joints, props=props)
