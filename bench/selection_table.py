"""The figures of `selection_report.py` as the table of docs/label_free_selection.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def format_markdown(report: Mapping[str, Any]) -> str:
    """Markdown: a row per score, smallest regret first, and what to know below it."""
    size, count = report["sweep_size"], report["configurations"]
    random_drawn, random_all = (
        float(np.mean(report["random"][key])) for key in ("regret_drawn", "regret_all")
    )
    lines = [
        "| score | Spearman [95 %] | by seed | Kendall | better half "
        f"| regret, {size} of {count} | regret, all {count}, by seed | chosen against CLIP "
        "| own views: Spearman | own views: regret |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in ("scores", "references"):
        ordered = sorted(report[kind].items(), key=lambda item: np.mean(item[1]["regret_drawn"]))
        for name, figures in ordered:
            low, high = figures["spearman_interval"]
            gain = np.mean(np.subtract(figures["chosen_top1"], report["clip_top1"]))
            own = "- | -"
            if kind == "scores":
                of_own = report["own_scores"][name]
                own = f"{of_own['spearman_mean']:+.2f} | {np.mean(of_own['regret_drawn']):.1f}"
            lines.append(
                f"| {f'`{name}`' if kind == 'scores' else name} "
                f"| {figures['spearman_mean']:+.2f} [{low:+.2f}, {high:+.2f}] "
                f"| {_join(figures['spearman'], '+.2f')} | {figures['kendall_mean']:+.2f} "
                f"| {figures['spearman_better_half']:+.2f} "
                f"| {np.mean(figures['regret_drawn']):.1f} "
                f"| {_join(figures['regret_all'], '.1f')} | {gain:+.1f} | {own} |"
            )
    mean_gain = np.mean(np.subtract(report["top1"]["mean"], report["clip_top1"]))
    lines.append(
        f"| choosing at random | 0 | - | 0 | 0 | {random_drawn:.1f} | {random_all:.1f} on average "
        f"| {mean_gain:+.1f} | - | - |"
    )
    if "recipe" in report:
        recipe = report["recipe"]
        gain = np.mean(np.subtract(recipe["top1"], report["clip_top1"]))
        lines.append(
            f"| the recipe, no choice | - | - | - | - | - | {_join(recipe['regret_all'], '.1f')} "
            f"| {gain:+.1f} | - | - |"
        )
    return "\n".join([*lines, "", *_format_notes(report)])


def _format_notes(report: Mapping[str, Any]) -> list[str]:
    top1 = report["top1"]
    lines = [
        f"* Top-1 by seed {report['seeds']}, %: CLIP {_join(report['clip_top1'], '.1f')}; best "
        f"{_join(top1['best'], '.1f')} ({', '.join(top1['best_configurations'])}); mean "
        f"{_join(top1['mean'], '.1f')}; worst {_join(top1['worst'], '.1f')}."
    ]
    if report["noise_points"] is not None:
        lines.append(
            f"* Noise of one run: {report['noise_points']:.1f} points (what configuration and "
            f"world don't explain); {report['within_noise_of_best']} of "
            f"{report['configurations']} configurations, the best included, can't be told from "
            "the best."
        )
    for choice in report["chosen_on_other_seeds"]:
        lines.append(
            f"* The score that does best on the other seeds is `{choice['score']}`; on seed "
            f"{choice['seed']} it loses {choice['regret_drawn']:.1f} points."
        )
    for name, reason in report["failed"].items():
        lines.append(f"* {name} failed and takes part in no figure: {reason}")
    return lines


def _join(values: Sequence[float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)
