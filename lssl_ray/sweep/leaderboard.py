"""The leaderboard of a sweep: configurations best first, as CSV and for a console.

It knows the trials it is given, and no sweep.
"""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lssl_ray.sweep.configurations import (
    NOISE_RULE,
    UNRANKED,
    LeaderboardRow,
    build_row,
    compare_rows,
    get_tier,
)
from lssl_ray.sweep.trials import (
    TRUTH_PREFIX,
    TRUTH_SUFFIX,
    TrialRecord,
    format_value,
    shorten_names,
)
from lssl_ray.whole_files import replacing


@dataclass(frozen=True)
class Leaderboard:
    """All configurations of a sweep.

    Attributes:
        select: Metric key that ranks them; higher is better.
        truth: Metric key of the true accuracy; None where none was measured.
        rows: Best first, failed ones last.
    """

    select: str
    truth: str | None
    rows: tuple[LeaderboardRow, ...]

    @property
    def best(self) -> LeaderboardRow | None:
        """The configuration of rank 1; None when no trial has a score."""
        return self.rows[0] if self.rows and self.rows[0].rank == 1 else None

    @property
    def best_trial(self) -> TrialRecord | None:
        """Of the best configuration, the trial with the highest score among those it is ranked by.

        None when no trial has a score.
        """
        if self.best is None:
            return None
        return max(self.best.scored, key=lambda trial: trial.scores[self.select])


def build_leaderboard(
    trials: Sequence[TrialRecord], *, select: str, truth: str | None = None
) -> Leaderboard:
    """Rank a sweep's configurations; the order of the trials doesn't matter.

    Args:
        trials: All of them, failed and stopped ones too.
        select: Metric key to rank by; higher is better.
        truth: Metric key of the true accuracy; None takes `select` where it is one, else the first
            `validation/SPLIT/zero_shot` that a trial has.
    """
    truth = truth or _find_truth(trials, select)
    groups: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: (trial.seed, trial.trial_id)):
        groups.setdefault(json.dumps(trial.values, sort_keys=True), []).append(trial)
    found = [build_row(group, select=select, truth=truth) for group in groups.values()]
    found.sort(key=_get_order)
    known = [row.truth for row in found if get_tier(row) < UNRANKED and row.truth is not None]
    best_truth = max(known, default=None)
    rows = []
    for place, row in enumerate(found, start=1):
        difference, within_noise = compare_rows(row, found[0])
        rows.append(
            replace(
                row,
                rank=place if get_tier(row) < UNRANKED else None,
                difference=difference,
                within_noise=within_noise,
                regret=None if best_truth is None or row.truth is None else best_truth - row.truth,
            )
        )
    return Leaderboard(select=select, truth=truth, rows=tuple(rows))


def write_leaderboard(leaderboard: Leaderboard, path: Path) -> None:
    """Write the leaderboard as CSV: a line per configuration, a column per value and setting.

    Args:
        leaderboard: Any.
        path: The file; replaced when it is there.
    """
    drawn = list(dict.fromkeys(key for row in leaderboard.rows for key in row.values))
    meant = dict.fromkeys(key for row in leaderboard.rows for key in row.settings)
    meant_only = [key for key in meant if key not in drawn]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *drawn, *meant_only, "trials", "run_folders", "reason"])
        for row in leaderboard.rows:
            writer.writerow(
                [
                    _write_cell(row.rank),
                    row.status,
                    leaderboard.select,
                    *(_write_cell(cell) for cell in (row.mean, row.spread)),
                    row.num_scored,
                    row.num_seeds,
                    row.steps,
                    _write_cell(row.difference),
                    _describe_noise(row),
                    *(_write_cell(cell) for cell in (row.truth, row.regret)),
                    *(_write_cell(row.values.get(key)) for key in drawn),
                    *(_write_cell(row.settings.get(key)) for key in meant_only),
                    " ".join(trial.trial_id for trial in row.trials),
                    " ".join(trial.run_folder for trial in row.trials),
                    row.reason,
                ]
            )


def format_leaderboard(leaderboard: Leaderboard, *, limit: int = 20) -> Table:
    """The leaderboard for a console; configurations without a rank are always shown.

    Why trials did not finish is told in `list_reasons`: sentences don't fit into a column.

    Args:
        leaderboard: Any.
        limit: Ranked configurations to show at most.
    """
    hidden = sum(not _is_shown(row, limit) for row in leaderboard.rows)
    knows_truth = leaderboard.truth not in (None, leaderboard.select)
    more = f"\n{hidden} more are not shown" if hidden else ""
    table = Table(
        title=f"Configurations by {leaderboard.select}", caption=f"{NOISE_RULE}{more}", expand=False
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("values", overflow="fold", min_width=10)
    table.add_column("score", justify="right", min_width=6)
    if knows_truth:
        table.add_column("true", justify="right", no_wrap=True)
        table.add_column("regret", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("to the best", overflow="fold")
    names = shorten_names(
        list(dict.fromkeys(key for row in leaderboard.rows for key in row.values))
    )
    for row in leaderboard.rows:
        if not _is_shown(row, limit):
            continue
        truth = [_round(row.truth), _round(row.regret)] if knows_truth else []
        seeds = str(row.num_seeds)
        if row.num_scored != row.num_seeds:
            seeds = f"{row.num_scored} of {row.num_seeds}"
        cells = [_write_cell(row.rank), _list_values(row, names), _describe_score(row), *truth]
        cells += [seeds, str(row.steps), _describe_place(row)]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if row.rank == 1 else "")
    return table


def list_reasons(leaderboard: Leaderboard, *, limit: int = 20) -> list[str]:
    """A line for each configuration of the table with a trial that did not finish: which, and why.

    Args:
        leaderboard: Any.
        limit: As for the table.
    """
    return [row.reason for row in leaderboard.rows if row.reason and _is_shown(row, limit)]


_COLUMNS = (
    "rank",
    "status",
    "select",
    "score",
    "spread",
    "seeds_scored",
    "seeds",
    "steps",
    "difference",
    "within_noise",
    "true_accuracy",
    "regret",
)


def _find_truth(trials: Sequence[TrialRecord], select: str) -> str | None:
    keys = {
        key
        for trial in trials
        for key in trial.scores
        if key.startswith(TRUTH_PREFIX) and key.endswith(TRUTH_SUFFIX)
    }
    return select if select in keys else min(keys, default=None)


def _is_shown(row: LeaderboardRow, limit: int) -> bool:
    return row.rank is None or row.rank <= limit


def _describe_noise(row: LeaderboardRow) -> str:
    if row.rank == 1:
        return "best"
    if row.difference is None:
        return ""
    return {True: "yes", False: "no", None: "unknown"}[row.within_noise]


def _describe_place(row: LeaderboardRow) -> str:
    if row.rank == 1:
        return "best"
    if row.difference is None:
        return row.status.replace("_", " ")
    noise = {True: ", within noise", False: "", None: ", noise unknown"}[row.within_noise]
    return f"{row.difference:+.4f}{noise}"


def _describe_score(row: LeaderboardRow) -> str:
    return _round(row.mean) + (f" +- {row.spread:.4f}" if row.spread is not None else "")


def _list_values(row: LeaderboardRow, names: dict[str, str]) -> str:
    return "\n".join(f"{names[key]}={format_value(value)}" for key, value in row.values.items())


def _round(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _write_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _get_order(row: LeaderboardRow) -> tuple[int, int, float, str]:
    tier = get_tier(row)
    # Of the stopped ones, who came further first: their scores are of different steps.
    steps = row.steps if tier == 1 else 0
    return tier, -steps, math.inf if row.mean is None else -row.mean, row.trials[0].trial_id
