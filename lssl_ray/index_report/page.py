"""How an index report looks: one page without scripts or links to anything, light and dark.

Names of files and labels come from strangers; they are texts wherever they appear. Histograms are
drawn by matplotlib, bars with names are tables. Not here: what is counted (`figures`).
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

__all__ = ["render_page"]

NUM_SHOWN_SIZES = 8
NUM_SHOWN_LABELS = 15  # at either end; up to twice as many labels are all shown
NUM_SHOWN_EXTENSIONS = 20

# Drawn in these, then replaced by the page's variables: a picture follows light and dark.
_PAGE_COLOURS = {"#0a0b01": "var(--bar)", "#0a0b02": "var(--muted)", "#0a0b03": "var(--line)"}
_BAR, _MUTED, _LINE = _PAGE_COLOURS


@dataclass(frozen=True)
class _Quantity:
    """A number that every usable video has, and how people read it."""

    title: str
    unit: str
    format: Callable[[float], str]
    log_ticks: Sequence[float]


def render_page(figures: Mapping[str, Any]) -> str:
    """The report as HTML.

    Args:
        figures: From `compute_index_figures`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lssl_ray.index_report", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "commas": lambda number: f"{number:,}",
        "bytes": _format_bytes,
        "duration": _format_seconds,
    }
    panels = [
        (quantity, figures["histograms"][name], _draw_histogram(name, figures["histograms"][name]))
        for name, quantity in _QUANTITIES.items()
    ]
    labels = list(figures["labels"]["num_usable_videos"].items())
    is_long = len(labels) > 2 * NUM_SHOWN_LABELS
    return environment.get_template("page.html").render(
        figures,
        panels=panels,
        labels_shown=[labels[:NUM_SHOWN_LABELS], labels[-NUM_SHOWN_LABELS:]]
        if is_long
        else [labels],
        num_labels_hidden=len(labels) - 2 * NUM_SHOWN_LABELS if is_long else 0,
        sizes_shown=_take_top(figures["frame_sizes"], NUM_SHOWN_SIZES),
        extensions_shown=_take_top(
            figures["indexing"]["ignored_by_extension"], NUM_SHOWN_EXTENSIONS
        ),
    )


def _take_top(counts: Mapping[str, int], number: int) -> dict[str, int]:
    """The most frequent ones, and the rest as one."""
    rows = sorted(counts.items(), key=lambda row: -row[1])
    shown = dict(rows[:number])
    if len(rows) > number:
        shown[f"{len(rows) - number} others"] = sum(count for _, count in rows[number:])
    return shown


def _draw_histogram(name: str, histogram: Mapping[str, Any] | None) -> str:
    """An SVG element in the page's colours and letters; "" for nothing to draw."""
    if histogram is None:
        return ""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9,
        "axes.edgecolor": _LINE,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6, 1.9), layout="constrained")
        panel = figure.subplots()
        _fill_panel(panel, _QUANTITIES[name], histogram)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="both", length=0)
        panel.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.grid(axis="y", color=_LINE, linewidth=0.8)
        panel.set_axisbelow(True)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # the page holds several pictures
    for drawn, variable in _PAGE_COLOURS.items():
        svg = svg.replace(drawn, variable)
    return svg


def _fill_panel(panel: Any, quantity: _Quantity, histogram: Mapping[str, Any]) -> None:
    counts = histogram["counts"]
    if "values" in histogram:
        texts = [quantity.format(value) for value in histogram["values"]]
        panel.bar(range(len(texts)), counts, width=0.6, color=_BAR)
        panel.set_xticks(range(len(texts)), texts)
        panel.set_xlim(-0.8, max(len(texts), 5) - 0.2)  # a single value is no wall of colour
        return
    edges = np.asarray(histogram["edges"])
    panel.bar(edges[:-1], counts, width=0.94 * np.diff(edges), align="edge", color=_BAR)
    panel.set_xlim(edges[0], edges[-1])
    panel.set_xscale(histogram["scale"])
    if histogram["scale"] == "log":
        inside = [tick for tick in quantity.log_ticks if edges[0] <= tick <= edges[-1]]
        panel.xaxis.set_major_locator(FixedLocator(inside))
        panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity.format(value)))


def _format_seconds(seconds: float) -> str:
    for limit, size, unit in ((100.0, 1.0, "s"), (5400.0, 60.0, "min"), (np.inf, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError(seconds)


def _format_bytes(number: float) -> str:
    for power, unit in enumerate(("B", "kB", "MB", "GB", "TB")):
        if number < 999.5 * 1000.0**power:
            return f"{number / 1000.0**power:.3g} {unit}"
    return f"{number / 1e15:.3g} PB"


def _format_plain(value: float) -> str:
    return f"{value:.4g}"


_QUANTITIES = {
    "duration_seconds": _Quantity(
        "Duration",
        "",
        _format_seconds,
        (0.1, 0.3, 1, 3, 10, 30, 120, 600, 1800, 7200, 36000),
    ),
    "short_side": _Quantity("Frame, short side", "px", _format_plain, (8, 16, 64, 240, 1080, 4320)),
    "fps": _Quantity("Frame rate", "frames/s", _format_plain, (1, 3, 10, 30, 100, 300, 1000)),
    "size_bytes": _Quantity("File size", "", _format_bytes, [10.0**power for power in range(13)]),
}
