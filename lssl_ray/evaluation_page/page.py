"""How an evaluation report looks: one page without scripts or links to anything, light and dark.

Labels, file names and notes come from strangers; they are texts wherever they appear. Pictures are
drawn by matplotlib, bars with names are tables.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

from lssl_ray.evaluation_page.figures import (
    CHANGE_NOTE,
    MODEL_NAMES,
    NUM_PAIRS_SHOWN,
    SPREAD_NOTE,
    build_headline,
    describe_coverage,
    describe_reading,
    describe_views,
    list_models,
    split_classes,
)

NUM_EXCLUDED_SHOWN = 200
# Drawn in these, then replaced by the page's variables: a picture follows light and dark.
_PAGE_COLOURS = {
    "#0a0b01": "var(--second)",
    "#0a0b02": "var(--muted)",
    "#0a0b03": "var(--line)",
    "#0a0b04": "var(--first)",
}
_SECOND, _MUTED, _LINE, _FIRST = _PAGE_COLOURS


def render_page(
    report: Mapping[str, Any],
    *,
    shown: Sequence[str],
    pictures: Mapping[tuple[str, str], Path],
) -> str:
    """The report as HTML.

    Args:
        report: What `lssl-ray evaluate` found.
        shown: Slugs of the outcomes whose classes are opened.
        pictures: Slug and model to a confusion picture, PNG.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lssl_ray.evaluation_page", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["commas"] = lambda number: f"{number:,}"
    headline = build_headline(report)
    models = list_models(report)
    sections = [
        {
            "outcome": outcome,
            "classes": split_classes(outcome),
            "pairs": [
                (MODEL_NAMES[model], pairs[:NUM_PAIRS_SHOWN])
                for model, pairs in outcome["confused_pairs"].items()
            ],
            "pictures": [
                (MODEL_NAMES[model], _embed(path))
                for (slug, model), path in pictures.items()
                if slug == outcome["slug"]
            ],
        }
        for outcome in report["outcomes"]
        if outcome["slug"] in shown
    ]
    return environment.get_template("page.html").render(
        report=report,
        headline=headline,
        models=[(model, MODEL_NAMES[model]) for model in models],
        sections=sections,
        overview=_draw_overview(headline, models) if len(headline) > 1 else "",
        sweep_picture=_draw_sweep(report["sweep"]) if report["sweep"] else "",
        views=describe_views(report),
        reading=describe_reading(report),
        spread_note=SPREAD_NOTE,
        change_note=CHANGE_NOTE,
        coverage=describe_coverage(report),
        excluded_shown=report["excluded_undecodable"]["videos"][:NUM_EXCLUDED_SHOWN],
    )


def _embed(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _draw_overview(headline: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    """Top-1 of every protocol with its interval, models side by side."""

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        offset = 0.13 if len(models) > 1 else 0.0
        for index, model in enumerate(models):
            colour = _FIRST if model == models[0] and len(models) > 1 else _SECOND
            cells = [row["cells"][model] for row in headline]
            places = [-place + offset * (1 - 2 * index) for place in range(len(cells))]
            panel.hlines(
                places,
                [cell["low"] for cell in cells],
                [cell["high"] for cell in cells],
                color=colour,
                linewidth=2,
            )
            points = [cell["point"] for cell in cells]
            panel.plot(points, places, "o", color=colour, markersize=6, clip_on=False)
        panel.set_yticks(
            [-place for place in range(len(headline))], [row["title"] for row in headline]
        )
        panel.set_xlim(0, 100)
        panel.set_xlabel("top-1, %", color=_MUTED)
        panel.grid(axis="x", color=_LINE, linewidth=0.8)
        panel.spines[["top", "right", "left"]].set_visible(False)

    return _draw_svg(draw, name="overview", width=7.6, height=0.9 + 0.42 * len(headline))


def _draw_sweep(sweep: Mapping[str, Any]) -> str:
    """Top-1 against the share of the adapted weights."""
    points = sweep["points"]
    alphas = [point["alpha"] for point in points]

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        panel.fill_between(
            alphas,
            [point["low_percent"] for point in points],
            [point["high_percent"] for point in points],
            color=_SECOND,
            alpha=0.15,
            linewidth=0,
        )
        panel.plot(
            alphas, [point["top1_percent"] for point in points], "o-", color=_SECOND, markersize=5
        )
        panel.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
        panel.set_xlabel("alpha: 0 is CLIP, 1 the adapted weights", color=_MUTED)
        panel.set_ylabel("zero-shot top-1, %", color=_MUTED)
        panel.grid(axis="y", color=_LINE, linewidth=0.8)
        panel.spines[["top", "right", "left"]].set_visible(False)

    return _draw_svg(draw, name="sweep", width=7.6, height=3.0)


def _draw_svg(draw: Any, *, name: str, width: float, height: float) -> str:
    """An SVG element in the page's colours and letters."""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "text.parse_math": False,
        "text.color": _MUTED,
        "axes.edgecolor": _LINE,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        for panel in figure.axes:
            panel.tick_params(axis="both", length=0)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # the page holds several pictures
    for drawn, variable in _PAGE_COLOURS.items():
        svg = svg.replace(drawn, variable)
    return svg
