"""The report as Markdown: the same rows as the page, without pictures."""

from collections.abc import Mapping
from typing import Any

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

NUM_EXCLUDED_SHOWN = 50


def render_markdown(report: Mapping[str, Any]) -> str:
    """The report's text.

    Args:
        report: What `lssl-ray evaluate` found.
    """
    parts = [
        f"# Evaluation: {report['name']}",
        f"{_escape(report['model']['title'])}, {report['benchmark']}, {report['created']}",
        *_render_headline(report),
        *_render_sweep(report),
        *_render_outcomes(report),
        *_render_excluded(report),
        *_render_making(report),
    ]
    return "\n\n".join(parts) + "\n"


def _render_headline(report: Mapping[str, Any]) -> list[str]:
    models = list_models(report)
    names = [MODEL_NAMES[model] for model in models]
    head = ["protocol", "of", "videos", *(f"{name}, top-1 %" for name in names)]
    two = len(models) > 1
    if two:
        head += ["change, points", "95 % of the change", "McNemar p"]
    head += [f"{name}, undecodable counted wrong" for name in names]
    rows = []
    for row in build_headline(report):
        cells = [row["title"], row["set"], str(row["videos"])]
        cells += [
            f"{row['cells'][model]['top1']:.1f} ({row['cells'][model]['spread']})"
            for model in models
        ]
        if two:
            cells += [f"{row['change']:+.1f}", f"{row['change_spread']}", row["p"]]
        cells += [f"{row['cells'][model]['wrong']:.1f}" for model in models]
        rows.append(cells)
    note = f"In brackets: {SPREAD_NOTE}."
    sets = sorted(
        {row["change_set"] for row in build_headline(report) if row["change"] is not None}
    )
    return [
        "## Result",
        _tabulate(head, rows),
        f"{note} {CHANGE_NOTE} ({', '.join(sets)})." if sets else note,
    ]


def _render_sweep(report: Mapping[str, Any]) -> list[str]:
    sweep = report["sweep"]
    if sweep is None:
        return []
    rows = [
        [
            f"{point['alpha']:g}",
            f"{point['top1_percent']:.1f}",
            f"{point['low_percent']:.1f} to {point['high_percent']:.1f}",
        ]
        for point in sweep["points"]
    ]
    return [
        "## Between CLIP (0) and the adapted weights (1)",
        _tabulate(["alpha", "zero-shot top-1 %", "95 % (Wilson)"], rows),
        sweep["warning"],
    ]


def _render_outcomes(report: Mapping[str, Any]) -> list[str]:
    parts = []
    for outcome in report["outcomes"]:
        parts.append(f"## {outcome['title']}")
        parts += ["\n".join(f"* {_escape(note)}" for note in outcome["notes"])] * bool(
            outcome["notes"]
        )
        classes = split_classes(outcome)
        for title, group in classes["groups"]:
            rows = [
                [
                    _escape(row["label"]),
                    str(row["videos"]),
                    f"{row['first_percent']:.1f}",
                    *(
                        [f"{row['second_percent']:.1f}", f"{row['change_points']:+.1f}"]
                        if row["change_points"] is not None
                        else []
                    ),
                ]
                for row in group
            ]
            names = [MODEL_NAMES[model] for model in outcome["models"]]
            head = [title or "class", "videos", *names, *(["change"] if len(names) > 1 else [])]
            parts.append(_tabulate(head, rows))
        if classes["hidden"]:
            parts.append(f"{classes['hidden']} more classes are in report.json.")
        for model, pairs in outcome["confused_pairs"].items():
            if pairs:
                shown = "; ".join(
                    f"{_escape(pair['truth'])} taken for {_escape(pair['predicted'])} "
                    f"({pair['videos']})"
                    for pair in pairs[:NUM_PAIRS_SHOWN]
                )
                parts.append(f"Most confused by {MODEL_NAMES[model]}: {shown}.")
    return parts


def _render_excluded(report: Mapping[str, Any]) -> list[str]:
    excluded = report["excluded_undecodable"]
    parts = ["## Excluded videos", f"{excluded['rule']} Here: {excluded['count']}."]
    if excluded["videos"]:
        lines = [
            f"* {_escape(video['video_id'])}: {video['reason']} ({_escape(video['detail'])})"
            for video in excluded["videos"][:NUM_EXCLUDED_SHOWN]
        ]
        parts.append("\n".join(lines))
    if report["excluded_unlabelled"]:
        parts.append(f"Without label, as asked for: {report['excluded_unlabelled']}.")
    return parts


def _render_making(report: Mapping[str, Any]) -> list[str]:
    model = report["model"]
    lines = [
        f"* what training knew (transductive reading): {describe_reading(report)}",
        f"* labels: {len(report['labels']['names'])}, {_escape(report['labels']['source'])}",
        f"* templates: {' | '.join(map(_escape, report['templates'])) or 'none read'}",
        *(f"* view {line}" for line in describe_views(report)),
        f"* CLIP: {_escape(model['clip'])}, weights {model['clip_digest'][:16]}",
        *(f"* features of {name}: {digest[:16]}" for name, digest in model["digests"].items()),
    ]
    if model["checkpoint"] is not None:
        lines.append(f"* adapted: {_escape(model['checkpoint'])}, alpha {model['alpha']:g}")
    if coverage := describe_coverage(report):
        lines.append(f"* {coverage}")
    return ["## How it was made", "\n".join(lines), f"```bash\n{report['command']}\n```"]


def _tabulate(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Names of strangers as text: no table cell, link, or element of theirs."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
