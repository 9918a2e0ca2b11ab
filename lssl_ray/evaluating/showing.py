"""What a terminal shows of an evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lssl_ray.display import RunDisplay
from lssl_ray.evaluation_page.figures import (
    CHANGE_NOTE,
    MODEL_NAMES,
    SPREAD_NOTE,
    build_headline,
    describe_coverage,
    describe_reading,
    list_models,
)

MAX_CLASSES = 60


def show_evaluation(display: RunDisplay, report: Mapping[str, Any], out: Path) -> None:
    """Classes of the first protocol, all headline figures, what was left out, where it is filed."""
    if classes := _tabulate_classes(report):
        display.show_table(classes)
    display.show_table(_tabulate_headline(report))
    features, excluded = report["features"], report["excluded_undecodable"]
    lines = [f"What training knew: {describe_reading(report)}"]
    if coverage := describe_coverage(report):
        lines.append(f"{coverage}")
    if excluded["count"]:
        reasons = ", ".join(f"{name} {count}" for name, count in excluded["by_reason"].items())
        lines.append(f"excluded_undecodable: {excluded['count']} ({reasons})")
    if report["excluded_unlabelled"]:
        lines.append(f"excluded_unlabelled: {report['excluded_unlabelled']}")
    lines.append(f"Features: {features['from_cache']} sets from the cache, {features['made']} made")
    if features["damaged_made_again"]:
        lines.append(f"  damaged in the cache and made again: {features['damaged_made_again']}")
    if report["sweep"]:
        lines += [_describe_sweep(report["sweep"]), report["sweep"]["warning"]]
    display.show_lines(*lines, f"Report: {out / 'report.html'}")


def _tabulate_headline(report: Mapping[str, Any]) -> Table:
    models = list_models(report)
    note = f"In brackets: {SPREAD_NOTE}."
    if len(models) > 1:
        note += f" {CHANGE_NOTE}."
    table = Table(title=f"Top-1, % ({report['model']['title']})", caption=note)
    table.add_column("protocol")
    table.add_column("of")
    for title in ("videos", *(MODEL_NAMES[model] for model in models)):
        table.add_column(title, justify="right")
    if len(models) > 1:
        table.add_column("change", justify="right")
        table.add_column("p", justify="right")
    for row in build_headline(report):
        cells = [row["cells"][model] for model in models]
        texts = [f"{cell['top1']:.1f} ({cell['spread']})" for cell in cells]
        if row["change"] is not None:
            texts += [f"{row['change']:+.1f} ({row['change_spread']})", row["p"]]
        table.add_row(row["title"], row["set"], str(row["videos"]), *texts)
    return table


def _tabulate_classes(report: Mapping[str, Any]) -> Table | None:
    """None for lists too long for a terminal: the report has them."""
    outcome = report["outcomes"][0]
    changes = outcome["class_changes"]
    if not changes or len(changes) > MAX_CLASSES:
        return None
    table = Table(title=f"{outcome['title']}, top-1 by class, %")
    for name in ("action", "videos", "CLIP", "adapted", "change"):
        table.add_column(name, justify="left" if name == "action" else "right")
    for row in changes:
        table.add_row(
            Text(row["label"]),
            str(row["videos"]),
            f"{row['first_percent']:.1f}",
            f"{row['second_percent']:.1f}",
            f"{row['change_points']:+.1f}",
        )
    return table


def _describe_sweep(sweep: Mapping[str, Any]) -> str:
    points = (f"{point['alpha']:g}: {point['top1_percent']:.1f}" for point in sweep["points"])
    return f"Interpolation, alpha: top-1 %   {'   '.join(points)}"
