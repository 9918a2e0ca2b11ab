"""Rows of an evaluation report as people read them: shared by the page and the Markdown.

Report in, texts and numbers for display out; no drawing, no markup.
"""

from collections.abc import Mapping
from typing import Any

MODEL_NAMES = {"clip": "CLIP", "adapted": "adapted"}
NUM_CLASSES_SHOWN = 15  # at either end; up to twice as many are all shown
NUM_PAIRS_SHOWN = 12
SPREAD_NOTE = (
    "Wilson's 95 % interval of one set of videos, or standard deviation over splits or seeds"
)
CHANGE_NOTE = (
    "The change's 95 % interval (bootstrap over videos) and McNemar's test are paired, on the same "
    "videos"
)


def list_models(report: Mapping[str, Any]) -> list[str]:
    """Models of the report, the baseline first."""
    return list(report["outcomes"][0]["models"])


def build_headline(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per outcome.

    Returns:
        Rows with `title`, `set` (what is averaged or scored), `videos`, `cells` per model (`top1`,
        `spread`, `wrong`), and `change`, `change_spread`, `p` where there are two models.
    """
    rows = []
    for outcome in report["outcomes"]:
        first = next(iter(outcome["models"].values()))
        averaged = first["std_points"] is not None
        number = len(first["values_percent"])
        row: dict[str, Any] = {
            "title": outcome["title"],
            "set": f"mean of {number} {outcome['over']}" if averaged else first["set"],
            "videos": first["set_videos"],
            "excluded": first["set_excluded_undecodable"],
            "cells": {name: _describe_cell(said) for name, said in outcome["models"].items()},
            "full": None,
            "change": None,
        }
        if averaged and outcome["full"] is not None:
            row["full"] = {
                name: said["set_interval"]["percent"] for name, said in outcome["models"].items()
            }
        if outcome["comparison"] is not None:
            row |= _describe_change(outcome)
        rows.append(row)
    return rows


def split_classes(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Classes by change: all of them, or the best and the worst ones.

    Without a second model, classes by accuracy.
    """
    changes = outcome["class_changes"]
    if not changes:
        (model,) = outcome["models"]
        part = outcome["full"] or outcome["parts"][0]
        changes = sorted(
            (
                {
                    "label": label,
                    "videos": row["videos"],
                    "first_percent": 100 * row["right"] / row["videos"],
                    "second_percent": None,
                    "change_points": None,
                }
                for label, row in part["results"][model]["per_class"].items()
            ),
            key=lambda row: -row["first_percent"],
        )
    if len(changes) <= 2 * NUM_CLASSES_SHOWN:
        return {"groups": [("", changes)], "hidden": 0}
    best, worst = changes[:NUM_CLASSES_SHOWN], changes[-NUM_CLASSES_SHOWN:][::-1]
    hidden = len(changes) - len(best) - len(worst)
    names = ("Best", "Worst") if changes[0]["change_points"] is None else ("Gained", "Lost")
    return {"groups": [(names[0], best), (names[1], worst)], "hidden": hidden}


def describe_views(report: Mapping[str, Any]) -> list[str]:
    """How videos were looked at, a line per view."""
    return [
        f"{name}: {view['num_frames']} frames of {view['size']} px, {view['num_clips']} temporal "
        f"clips x {view['num_crops']} crops"
        for name, view in report["views"].items()
    ]


def describe_reading(report: Mapping[str, Any]) -> str:
    """What training knew of the target, in words."""
    said = report["transductive"]
    if "labels" not in said:
        return "not stated: the training manifest is gone, or the model is an export"
    return (
        f"{said['transductive']} ({said['labels_in_training_vocabulary']} of {said['labels']} "
        f"labels were in the training vocabulary, {said['videos_seen_in_training']} of "
        f"{said['videos']} videos were seen in training, without labels)"
    )


def describe_coverage(report: Mapping[str, Any]) -> str | None:
    """How much of a benchmark the manifest has; None for an own manifest."""
    said = report["coverage"]
    if said is None:
        return None
    total = said["videos"] + said["missing_videos"]
    own = said["own_training_videos"]
    teaching = f"; {own} training videos are not official ones" if own else ""
    left_out = f"{said['extra_videos']} others were left out{teaching}"
    return (
        f"{said['videos']} of {said['benchmark']}'s {total} videos are in the manifest, "
        f"{said['missing_videos']} are missing, {left_out}"
    )


def format_p(value: float) -> str:
    """A p-value with as many digits as mean something."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _describe_cell(said: Mapping[str, Any]) -> dict[str, Any]:
    interval = said["set_interval"]
    spread = (
        f"{interval['low_percent']:.1f} to {interval['high_percent']:.1f}"
        if said["std_points"] is None
        else f"+- {said['std_points']:.1f}"
    )
    return {
        "top1": said["top1_percent"],
        "spread": spread,
        "wrong": said["set_top1_excluded_counted_wrong_percent"],
        "low": interval["low_percent"],
        "high": interval["high_percent"],
        "point": interval["percent"],
        "reading": said["transductive"],
    }


def _describe_change(outcome: Mapping[str, Any]) -> dict[str, Any]:
    comparison = outcome["comparison"]
    first, second = (outcome["models"][comparison[key]] for key in ("first", "second"))
    difference = comparison["difference"]
    return {
        "change": second["top1_percent"] - first["top1_percent"],
        "change_set": comparison["set"],
        "paired": difference["percent"],
        "change_spread": f"{difference['low_percent']:+.1f} to {difference['high_percent']:+.1f}",
        "p": format_p(comparison["mcnemar_p"]),
        "only_first": comparison["right_only_first"],
        "only_second": comparison["right_only_second"],
    }
