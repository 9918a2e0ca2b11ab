"""Trials of a sweep that was never run, and space files."""

from pathlib import Path
from typing import Any

from lssl_ray.sweep.trials import TrialRecord, TrialStatus

SELECT = "held_back/agreement"
TRUTH = "validation/val/zero_shot"


def build_trial(
    trial_id: str,
    values: dict[str, Any],
    score: float | None,
    *,
    seed: int = 0,
    status: TrialStatus = "finished",
    steps: int = 100,
    truth: float | None = None,
    reason: str = "",
    settings: dict[str, Any] | None = None,
) -> TrialRecord:
    """A record; without `score` it never got one."""
    scores = {} if score is None else {SELECT: score}
    return TrialRecord(
        trial_id=trial_id,
        values=values,
        seed=seed,
        status=status,
        steps=steps,
        scores=scores if truth is None else {**scores, TRUTH: truth},
        run_folder=f"runs/sweep/trials/{trial_id}",
        reason=reason,
        settings=settings or {},
    )


def write_space(folder: Path, samplers: str, *, derive: str = "", name: str = "mine") -> Path:
    """A space file: what `build_space` returns, and the body of `derive_settings`."""
    text = '"""Does it help?"""\n\nfrom ray import tune\n\n\n'
    text += f"def build_space():\n    return {samplers}\n"
    if derive:
        text += f"\n\ndef derive_settings(values):\n    {derive}\n"
    path = folder / f"{name}.py"
    path.write_text(text)
    return path
