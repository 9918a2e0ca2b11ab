"""Contact sheets: videos as rows of frames, beside what a model says of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lssl_ray.whole_files import replacing

NUM_FRAMES = 6
MAX_ROWS = 40  # a picture of more is too long to open
_BAR = "#1f77b4"
_GAP_PX = 3
_FULL_INCHES, _NOTE_INCHES = 1.75, 0.6
_MAX_LETTERS = 40


@dataclass(frozen=True)
class SheetRow:
    """A video on a contact sheet.

    Attributes:
        title: Its name.
        frames: RGB in [0, 255]; None where the file gave none.
        names: What is said of it, best first.
        scores: A bar for each name, in [0, 1].
        note: Shown instead of frames.
    """

    title: str
    frames: UInt8[np.ndarray, "frames height width 3"] | None
    names: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    note: str = ""


def draw_sheet(rows: Sequence[SheetRow], path: Path, *, title: str) -> int:
    """Draw the first rows; says how many did not fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = rows[:MAX_ROWS]
    # Names of files and labels are texts, whatever dollar signs they hold.
    with matplotlib.rc_context({"text.parse_math": False}):
        heights = [_FULL_INCHES if row.frames is not None else _NOTE_INCHES for row in shown]
        figure = Figure(figsize=(13, 0.6 + sum(heights)), layout="constrained")
        panels = figure.subplots(
            len(shown), 2, squeeze=False, width_ratios=(3.2, 1), height_ratios=heights
        )
        for (left, right), row in zip(panels, shown, strict=True):
            _draw_frames(left, row)
            _draw_bars(right, row)
        figure.suptitle(title, fontsize=10)
        with replacing(path) as unfinished:
            figure.savefig(unfinished, dpi=110)
    return len(rows) - len(shown)


def _draw_frames(panel: Axes, row: SheetRow) -> None:
    panel.set_title(_shorten(row.title, 2 * _MAX_LETTERS), fontsize=8, loc="left")
    panel.axis("off")
    if row.frames is None:
        panel.text(0.01, 0.5, row.note, fontsize=8, color="#b03030", va="center", wrap=True)
        return
    numbers = np.linspace(0, len(row.frames) - 1, min(NUM_FRAMES, len(row.frames))).round()
    tiles = []
    for number in numbers.astype(int):
        frame = row.frames[number]
        tiles += [frame, np.full((frame.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)]
    panel.imshow(np.concatenate(tiles[:-1], axis=1))
    panel.set_anchor("W")


def _draw_bars(panel: Axes, row: SheetRow) -> None:
    if not row.names:
        panel.axis("off")
        return
    places = np.arange(len(row.names))[::-1]
    panel.barh(places, row.scores, color=_BAR, alpha=0.35)
    for place, name, score in zip(places, row.names, row.scores, strict=True):
        text = f"{score:.2f}  {_shorten(name, _MAX_LETTERS)}"
        panel.text(0.02, place, text, fontsize=7, va="center")
    panel.set_xlim(0, 1)
    panel.set_ylim(-0.6, max(2.6, len(row.names) - 0.4))
    panel.set_yticks([])
    panel.tick_params(labelsize=6)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"..{text[2 - limit :]}"
