"""Pictures of a sweep: which setting mattered, and which values went with high scores.

Optuna computes and lays out both, over a study that is built from the trials, whoever searched.
They describe the trials that were made; with a few dozen trials they are hints, not tests.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)

from lssl_ray.sweep.trials import TrialRecord, format_value, shorten_names

# So few different numbers are shown as they are, more as an axis.
MAX_TICKS = 6
# An axis is logarithmic from this ratio of the largest number to the smallest on, when half of the
# numbers lie in this lowest share of it.
LOG_RATIO, LOG_SHARE = 8.0, 0.3
MAX_LETTERS = 24
DOTS_PER_INCH = 130


def compute_importance(trials: Sequence[TrialRecord], select: str) -> dict[str, float]:
    """How much of the score's variance each drawn value explains by itself.

    By fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014) over a random forest that is fitted to the
    scored trials. Values that all these trials share are left out.

    Args:
        trials: Of one sweep.
        select: The score's metric key.

    Returns:
        Share in [0, 1] by name as in the pictures, largest first; empty where there is nothing to
        compare.
    """
    scored = _select_scored(trials, select)
    if _find_reason(scored, select) is not None:
        return {}
    with _quiet():
        shares = optuna.importance.get_param_importances(
            _build_study(scored, select),
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            normalize=False,
        )
    return {str(name): float(share) for name, share in shares.items()}


def draw_importance(trials: Sequence[TrialRecord], select: str, path: Path) -> str | None:
    """The shares of `compute_importance`, as bars.

    Args:
        trials: Of one sweep; those without the score are counted in the title.
        select: The score's metric key.
        path: A PNG to write; its folder is made.

    Returns:
        Why there is nothing to draw, which the picture then says, too; None when there is.
    """
    scored = _select_scored(trials, select)
    reason = _find_reason(scored, select)
    if reason is not None:
        _draw_reason(reason, path)
        return reason
    shares = compute_importance(trials, select)
    names = list(reversed(shares))
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(8, 1.6 + 0.4 * len(names)), layout="constrained")
        panel = figure.subplots()
        bars = panel.barh(names, [100 * shares[name] for name in names], 0.6, color="#1f77b4")
        panel.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        panel.set_xlim(0, 110)
        panel.set_xlabel("% of the score's variance (fANOVA), alone")
        panel.set_title(_describe(trials, scored, select), fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        _save(figure, path)
    return None


def draw_parallel_coordinates(trials: Sequence[TrialRecord], select: str, path: Path) -> str | None:
    """Every trial as a line through its drawn values, coloured by its score.

    Args:
        trials: Of one sweep; those without the score are counted in the title.
        select: The score's metric key.
        path: A PNG to write; its folder is made.

    Returns:
        Why there is nothing to draw, which the picture then says, too; None when there is.
    """
    scored = _select_scored(trials, select)
    reason = _find_reason(scored, select)
    if reason is not None:
        _draw_reason(reason, path)
        return reason
    with matplotlib.rc_context({"text.parse_math": False}), _quiet():
        study = _build_study(scored, select)
        panel = optuna.visualization.matplotlib.plot_parallel_coordinate(study, target_name="score")
        figure = panel.figure
        try:
            _tidy_coordinates(panel)
            figure.set_size_inches(2.0 + 2.2 * len(study.trials[0].params), 5.5)
            panel.set_title(_describe(trials, scored, select), fontsize=10, y=1.04)
            _save(figure, path)
        finally:
            plt.close(figure)
    return None


def _tidy_coordinates(panel: Axes) -> None:
    """Make Optuna's drawing legible: its lines start at white, its logarithmic ticks collide."""
    lines = panel.collections[0]
    if lines.colorbar is not None:
        lines.colorbar.remove()  # the first axis says the same
    lines.set(cmap="viridis", linewidth=2.2, alpha=0.85, clip_on=False)
    panel.tick_params(axis="x", rotation=0, labelsize=10, pad=8)
    for axis in panel.figure.axes[1:]:
        if axis.get_yscale() == "log":
            low, high = axis.get_ylim()
            axis.set_yticks([low * (high / low) ** (step / 5) for step in range(6)])
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
            axis.yaxis.set_minor_locator(NullLocator())
        for label in axis.get_yticklabels():
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
            label.set(fontsize=9, bbox=box)


def _select_scored(trials: Sequence[TrialRecord], select: str) -> list[TrialRecord]:
    return [trial for trial in trials if math.isfinite(trial.scores.get(select, math.nan))]


def _find_reason(scored: Sequence[TrialRecord], select: str) -> str | None:
    if len(scored) < 2:
        return f"{len(scored)} of the trials has a score {select}; a comparison needs two."
    if len({trial.scores[select] for trial in scored}) < 2:
        return f"All {len(scored)} trials have the same score {select}."
    if not _list_varied(scored):
        return f"All {len(scored)} scored trials have the same values; only seeds differ."
    return None


def _list_varied(scored: Sequence[TrialRecord]) -> list[str]:
    """The keys that all scored trials have and that differ among them."""
    keys = [key for key in scored[0].values if all(key in trial.values for trial in scored)]
    return [key for key in keys if len({format_value(trial.values[key]) for trial in scored}) > 1]


def _build_study(scored: Sequence[TrialRecord], select: str) -> optuna.Study:
    varied = _list_varied(scored)
    short = shorten_names(varied)
    columns = {
        _cut(short[key]): _build_column([trial.values[key] for trial in scored]) for key in varied
    }
    study = optuna.create_study(direction="maximize")
    for index, trial in enumerate(scored):
        study.add_trial(
            optuna.trial.create_trial(
                params={name: values[index] for name, (values, _) in columns.items()},
                distributions={name: kind for name, (_, kind) in columns.items()},
                value=trial.scores[select],
            )
        )
    return study


def _build_column(values: Sequence[Any]) -> tuple[list[Any], BaseDistribution]:
    """Values as Optuna takes them, and what they range over."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        names = _name_texts([format_value(value) for value in values])
        return names, CategoricalDistribution(list(dict.fromkeys(names)))
    numbers = [float(f"{value:.3g}") for value in values]
    distinct = sorted(set(numbers))
    if len(distinct) <= MAX_TICKS:
        return numbers, CategoricalDistribution(distinct)
    low, high = distinct[0], distinct[-1]
    # How it was drawn isn't known here; even draws from 0 to 3 should not look logarithmic.
    crowded_below = median(distinct) - low < LOG_SHARE * (high - low)
    log = low > 0 and high / low >= LOG_RATIO and crowded_below
    return numbers, FloatDistribution(low, high, log=log)


def _describe(trials: Sequence[TrialRecord], scored: Sequence[TrialRecord], select: str) -> str:
    told = [f"{select}, {len(scored)} trials"]
    stopped = sum(trial.status == "stopped_early" for trial in scored)
    if stopped:
        told.append(f"{stopped} stopped early, at their last score")
    if len(scored) < len(trials):
        told.append(f"{len(trials) - len(scored)} without score left out")
    return "; ".join(told)


def _draw_reason(reason: str, path: Path) -> None:
    figure = Figure(figsize=(8, 1.5), layout="constrained")
    figure.text(0.5, 0.5, f"No plot: {reason}", ha="center", va="center", fontsize=11, wrap=True)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, bbox_inches="tight")


def _name_texts(texts: Sequence[str]) -> list[str]:
    """Short texts, those that are only alike when cut told apart by a number."""
    names: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        name = _cut(text)
        twins = sum(_cut(other) == name for other in names)
        names[text] = f"{name} ({twins + 1})" if twins else name
    return [names[text] for text in texts]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 2] + ".."


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line per study, and its note that its plots may change."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
