"""Pictures of an evaluation: who is taken for whom."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from lssl_ray.evaluation.confusion import Confusion, find_confused_pairs

MAX_WRITTEN_CELLS = 12
MAX_TICKS = 104
MAX_LETTERS = 28
PAIRS_PER_INCH = 3


def draw_confusion(confusion: Confusion, path: Path, *, title: str = "Confusion") -> None:
    """The confusion matrix, each row as shares of the right label's videos, and the worst pairs.

    Up to 12 labels the numbers of videos are written into the cells; of more than 104 labels every
    so many-th is named at the edge. Rows without videos are grey.

    Args:
        confusion: Of one model.
        path: A PNG to write; its folder is made.
        title: Above the matrix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Labels are texts, whatever dollar signs they hold.
    with matplotlib.rc_context({"text.parse_math": False}):
        side = float(np.clip(3 + 0.12 * len(confusion.labels), 5, 14))
        figure = Figure(figsize=(side + 6, side))
        left, right = figure.subplots(1, 2, width_ratios=(side, 4.5), gridspec_kw={"wspace": 0.1})
        _draw_matrix(confusion, left, figure)
        left.set_title(title, fontsize=11)
        _list_pairs(confusion, right, count=int(PAIRS_PER_INCH * side))
        figure.savefig(path, dpi=130, bbox_inches="tight")


def _draw_matrix(confusion: Confusion, panel: Axes, figure: Figure) -> None:
    totals = confusion.counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_array(
        100 * confusion.counts / np.maximum(totals, 1),
        mask=np.broadcast_to(totals == 0, confusion.counts.shape),
    )
    # From the page's white to dark: the dark page shows it inverted, so from dark to bright.
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="0.85")
    # A root brings out the small shares beside the diagonal.
    image = panel.imshow(
        shares, cmap=colours, norm=PowerNorm(0.5, vmin=0, vmax=100), interpolation="nearest"
    )
    size = len(confusion.labels)
    step = -(-size // MAX_TICKS)
    ticks = np.arange(0, size, step)
    names = [_shorten(confusion.labels[tick]) for tick in ticks]
    letters = 9 if size <= 30 else 7 if len(ticks) <= 60 else 5
    panel.set_yticks(ticks, names, fontsize=letters)
    panel.set_xticks(ticks, names, fontsize=letters, rotation=90)
    shown = "" if step == 1 else f" (one label in {step} is named)"
    panel.set_ylabel(f"right label{shown}; colour: % of its videos")
    panel.set_xlabel("predicted label")
    if size <= MAX_WRITTEN_CELLS:
        for row, column in np.ndindex(size, size):
            if confusion.counts[row, column]:
                dark = shares[row, column] > 25
                panel.text(
                    column,
                    row,
                    str(confusion.counts[row, column]),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if dark else "black",
                )
    panel.set_anchor("NW")
    figure.colorbar(
        image,
        ax=panel,
        fraction=0.03,
        pad=0.02,
        anchor=(0, 1),
        ticks=[0, 5, 25, 50, 100],
    )


def _list_pairs(confusion: Confusion, panel: Axes, *, count: int) -> None:
    pairs = find_confused_pairs(confusion, limit=count)
    panel.axis("off")
    panel.set_title("Most confused: right label -> predicted, videos", fontsize=10, loc="left")
    lines = [
        f"{pair.count:4d} ({pair.share:4.0%})  {_shorten(pair.truth)} -> {_shorten(pair.predicted)}"
        for pair in pairs
    ]
    text = "\n".join(lines) if lines else "no wrong prediction"
    panel.text(0, 1, text, fontsize=8, va="top", family="monospace", linespacing=1.6)


def _shorten(label: str) -> str:
    return label if len(label) <= MAX_LETTERS else label[: MAX_LETTERS - 2] + ".."
