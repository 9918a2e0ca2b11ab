"""A picture of a concept space: who lies near whom, and which labels are hard to tell apart."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lssl_ray.concepts.similarity import find_neighbours, order_by_similarity
from lssl_ray.concepts.space import ConceptSpace

NUM_NEIGHBOURS = 3
CONFUSABLE_PER_INCH = 4
MAX_TICKS = 64
MAX_LETTERS = 28


def draw_concept_map(space: ConceptSpace, path: Path) -> None:
    """Cosines between all labels, similar ones side by side, and the most confusable labels.

    Of more than 64 labels every so many-th is named at the map's edge.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Labels are texts, whatever dollar signs they hold.
    with matplotlib.rc_context({"text.parse_math": False}):
        height = float(np.clip(3 + 0.16 * len(space.labels), 5, 12))
        figure = Figure(figsize=(height + 10, height))
        left, right = figure.subplots(1, 2, width_ratios=(height, 9), gridspec_kw={"wspace": 0.05})
        _draw_cosines(space, left, figure)
        _draw_confusable(space, right, count=int(CONFUSABLE_PER_INCH * height))
        figure.suptitle(
            f"{len(space.labels)} labels in the space of {space.clip_name} "
            f"({space.clip_digest[:12]})",
            fontsize=10,
            y=0.96,
        )
        figure.savefig(path, dpi=130, bbox_inches="tight")


def _draw_cosines(space: ConceptSpace, panel: Axes, figure: Figure) -> None:
    order = order_by_similarity(space.categories)
    rows = space.categories[order]
    cosines = (rows @ rows.T).numpy()
    # The diagonal is 1 by definition; the colours belong to the rest.
    others = cosines[~np.eye(len(order), dtype=bool)]
    image = panel.imshow(
        cosines, vmin=others.min(), vmax=others.max(), cmap="viridis", interpolation="nearest"
    )
    panel.set_anchor("N")
    step = -(-len(order) // MAX_TICKS)
    ticks = np.arange(0, len(order), step)
    names = [_shorten(space.labels[order[tick]]) for tick in ticks]
    size = 7 if len(ticks) > MAX_TICKS // 2 else 9
    panel.set_yticks(ticks, names, fontsize=size)
    panel.set_xticks(ticks, names, fontsize=size, rotation=90)
    shown = "" if step == 1 else f"; one label in {step} is named"
    panel.set_title(f"Cosines between labels, by similarity{shown}", fontsize=10)
    figure.colorbar(image, ax=panel, shrink=0.6, label="cosine")


def _draw_confusable(space: ConceptSpace, panel: Axes, *, count: int) -> None:
    """Labels with the nearest nearest neighbours, as a table."""
    cosines, indices = find_neighbours(space.categories, count=NUM_NEIGHBOURS)
    most = cosines[:, 0].argsort(descending=True, stable=True)[:count].tolist()
    columns = [[_shorten(space.labels[row]) for row in most]]
    for rank in range(indices.shape[1]):
        pairs = zip(indices[most, rank].tolist(), cosines[most, rank].tolist(), strict=True)
        columns.append([f"{cosine:.2f}  {_shorten(space.labels[row])}" for row, cosine in pairs])
    heads = ("label", "nearest", "second", "third")
    panel.axis("off")
    panel.set_title("Most confusable labels and their neighbours, cosine", fontsize=10)
    # A text per column is drawn far faster than a table of as many cells.
    for place, (head, lines) in enumerate(zip(heads, columns, strict=False)):
        left = place / len(heads)
        panel.text(left, 1, head, fontsize=8, va="top", weight="bold")
        panel.text(left, 0.97, "\n".join(lines), fontsize=7, va="top", linespacing=1.7)


def _shorten(label: str) -> str:
    return label if len(label) <= MAX_LETTERS else label[: MAX_LETTERS - 2] + ".."
