"""What the journal says of evaluations beside training: read back, and summed up.

Rows come later than training rows of higher steps: nothing here relies on their order.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lssl_ray.tracking.journal import METRICS_FILE, QUARANTINE_FILE, read_rows
from lssl_ray.validation.best import find_best

NOT_EVALUATED = "validation/not_evaluated"
WAITING = "validation/waiting"
VALIDATE_STAGE = "validate"
# In each row of an evaluation, and in no other: most rows need not be parsed.
_MARK = f'"{WAITING}"'


def read_evaluations(run_folder: Path) -> Iterator[dict[str, Any]]:
    """The journal's rows of evaluated and given-up checkpoints."""
    path = run_folder / METRICS_FILE
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n") and _MARK in line:
                yield json.loads(line)


def read_quarantined(run_folder: Path) -> set[tuple[str, str]]:
    """Id and path of the videos that evaluations beside training have quarantined."""
    rows = read_rows(run_folder / QUARANTINE_FILE)
    return {(row["video_id"], row["path"]) for row in rows if row["stage"] == VALIDATE_STAGE}


def summarise_evaluations(run_folder: Path) -> dict[str, Any]:
    """For summary.json: every point, what was not evaluated and why, the best."""
    rows = sorted(read_evaluations(run_folder), key=lambda row: int(row["step"]))
    best = find_best(run_folder)
    return {
        "points": [
            {"step": row["step"]}
            | {name: row[name] for name in row if _is_score(name)}
            | {"seconds": row["time/validation_seconds"]}
            for row in rows
            if NOT_EVALUATED not in row
        ],
        "not_evaluated": [
            {"step": row["step"], "reason": row["reason"]} for row in rows if NOT_EVALUATED in row
        ],
        "best": None if best is None else asdict(best),
    }


def _is_score(name: str) -> bool:
    return name.startswith(("validation/", "held_back/")) and name != WAITING
