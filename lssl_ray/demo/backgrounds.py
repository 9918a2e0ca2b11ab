"""What stands behind the figures: colour fields, textures and clutter.

Painted once per scene, before lighting, with a margin for camera motion.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lssl_ray.demo.conditions import COLORS, Conditions
from lssl_ray.demo.figures import Color

__all__ = ["build_background", "choose_colors", "paint_clutter", "vary_color"]


def vary_color(
    rng: np.random.Generator, color: Color, *, sigma: float = 9.0
) -> NDArray[np.float64]:
    """Return a color, float64 [3], with normal noise added; it may leave [0, 255]."""
    return np.asarray(color) + rng.normal(0.0, 9.0, size=3)


def paint_clutter(rng: np.random.Generator, canvas: Image.Image, *, count: int) -> None:
    """Paint that many random lines, ellipses and rectangles, in place."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    for _ in range(count):
        base = np.asarray(canvas.getpixel((width // 2, height // 2)), dtype=np.float32)
        mixed = 0.45 * base + 0.55 * rng.uniform(0, 255, size=3)
        fill = (int(mixed[0]), int(mixed[1]), int(mixed[2]))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        dx, dy = rng.uniform(-0.3, 0.3, size=2) * min(width, height)
        box = (min(x, x + dx), min(y, y + dy), max(x, x + dx), max(y, y + dy))
        shape = rng.integers(3)
        if shape == 0:
            draw.line((x, y, x + dx, y + dy), fill=fill, width=int(rng.integers(2, 7)))
        elif shape == 1:
            draw.ellipse(box, fill=fill)
        else:
            draw.rectangle(box, fill=fill)


def choose_colors(
    rng: np.random.Generator, *, conditions: Conditions
) -> tuple[str, str, str, Color]:
    """Return names for figure, props and background, and the background's own colour.

    Figure and props stand out from the background by at least the conditions' distance.
    """
    names = list(COLORS)
    values = np.array([COLORS[name] for name in names], dtype=np.float32)
    background = int(rng.integers(len(names)))
    back = values[background]
    if rng.random() < conditions.pale_share:
        back = 0.35 * back + 0.65 * 245.0
    gaps = np.linalg.norm(values - back, axis=1)
    visible = [index for index in range(len(names)) if gaps[index] >= conditions.color_distance]
    figure, prop = rng.choice(visible, size=2, replace=False)
    color = (int(back[0]), int(back[1]), int(back[2]))
    return names[int(figure)], names[int(prop)], names[background], color


def build_background(
    rng: np.random.Generator, *, kind: str, color: Color, size: tuple[int, int], floor: float
) -> Image.Image:
    """Return a backdrop.

    Args:
        rng: source of every choice.
        kind: plain, gradient, floor, texture or stripes.
        color: main colour.
        size: width and height in pixels.
        floor: where the ground begins, as a share of the height (kind floor only).
    """
    width, height = size
    base = vary_color(rng, color)
    coarse: NDArray[np.float64]
    other = np.clip(base + rng.uniform(-45, 45, size=3), 0, 255)
    if kind == "plain":
        coarse = base[None, None].repeat(2, 0).repeat(2, 1)
    elif kind == "gradient":
        ramp = np.linspace(0, 1, 8)[:, None, None]
        coarse = (base * ramp + other * (1 - ramp)).repeat(8, 1)
        coarse = coarse if rng.random() < 0.5 else coarse.transpose(1, 0, 2)
    elif kind == "floor":
        rows = np.arange(64)[:, None, None] / 64
        coarse = np.where(rows < floor, base, other).repeat(2, 1)
    elif kind == "texture":
        grain = int(rng.integers(8, 36))
        coarse = base + rng.normal(0, 22, size=(grain, grain, 1)) + rng.normal(0, 7, size=3)
    else:
        bars = rng.integers(5, 16)
        coarse = np.where(np.arange(2 * bars)[:, None, None] % 2, base, 0.55 * base + 0.45 * other)
        coarse = coarse if rng.random() < 0.5 else coarse.transpose(1, 0, 2)
    picture = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    sharp = kind in ("floor", "stripes", "plain")
    mode = Image.Resampling.NEAREST if sharp else Image.Resampling.BICUBIC
    return picture.resize((width, height), mode)
