"""A sweep's trials as plain records, and how their values are named and compared.

Nothing here starts or watches a trial; who runs the sweep fills in the records.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TrialStatus = Literal["finished", "stopped_early", "failed"]
# How configurations are drawn, and what may stop a trial before its end.
Search = Literal["random", "grid", "optuna"]
Scheduler = Literal["asha", "none"]
# A configuration's zero-shot accuracy on labelled videos: the truth that other scores stand for.
TRUTH_PREFIX, TRUTH_SUFFIX = "validation/", "/zero_shot"


@dataclass(frozen=True)
class TrialRecord:
    """One training of a sweep.

    Attributes:
        trial_id: Names the trial and its folder.
        values: What was drawn: dotted setting, or a name of the space's own, to value. Equal
            values are one configuration, whatever the seed.
        seed: The trial's `run.seed`.
        status: `stopped_early`: by the scheduler; `failed`: by an error, after its retries.
        steps: Training steps done.
        scores: Metric key to its last value, higher is better; empty when there is none.
        run_folder: Where the run lies.
        reason: Why it failed or was stopped; empty when it finished.
        settings: What the values come to, dotted setting to value, where that says more than the
            values themselves (`SweepSpace.compute_settings`).
    """

    trial_id: str
    values: dict[str, Any]
    seed: int
    status: TrialStatus
    steps: int
    scores: dict[str, float]
    run_folder: str
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)


def build_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the `dotted.key=value` texts that `load_config` takes.

    Args:
        settings: Dotted setting to a plain value; a mapping is a schedule.
    """
    # In order, a schedule comes before a key that changes a part of it.
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(settings.items())
    ]


def shorten_names(names: Sequence[str]) -> dict[str, str]:
    """Each dotted name to its last part, or to as many parts as tell it from the others."""
    short = {}
    for name in names:
        parts = name.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        short[name] = next(
            (
                tail
                for tail in tails
                if not any(_ends(other, tail) for other in names if other != name)
            ),
            name,
        )
    return short


def format_value(value: Any) -> str:
    """A value in few letters: numbers to 3 digits, a schedule as words."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping) and {"shape", "start", "end"} <= set(value):
        until = f" until {format_value(value['until'])}" if "until" in value else ""
        ends = f"{format_value(value['start'])} to {format_value(value['end'])}"
        return f"{value['shape']} {ends}{until}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(format_value(item) for item in value)}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _ends(name: str, tail: str) -> bool:
    return name == tail or name.endswith(f".{tail}")
