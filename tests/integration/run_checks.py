"""What a run that was disturbed must have in common with one that was not."""

from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from lssl_ray.tracking.journal import AUDIT_FILE, read_rows
from lssl_ray.training.audit import find_missing_and_repeated

CLIPS_PER_STEP = 4  # of `tiny.build_recipe_values`


def count_rows(folder: Path) -> int:
    return sum(1 for _ in read_rows(folder / "metrics.jsonl"))


def load_final(folder: Path, name: str, *, num_steps: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step_{num_steps:08d}" / f"{name}.safetensors")


def check_same_training(folder: Path, reference: Path, *, num_steps: int) -> None:
    """Final weights and optimiser equal to the bit, and a row for each step, once."""
    for name in ("student", "teacher", "optimizer"):
        ours = load_final(folder, name, num_steps=num_steps)
        theirs = load_final(reference, name, num_steps=num_steps)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    rows = list(read_rows(folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, num_steps + 1))
    assert rows[-1]["data/clips_trained"] == CLIPS_PER_STEP * num_steps


def check_each_clip_once(folder: Path, *, num_steps: int) -> None:
    """Of a run with `data.audit`: what the weights have seen is the plan, clip for clip."""
    rows = list(read_rows(folder / AUDIT_FILE))
    assert [row["step"] for row in rows] == list(range(1, num_steps + 1))
    num_positions = CLIPS_PER_STEP * num_steps
    assert find_missing_and_repeated(rows, num_positions=num_positions) == ([], [])


def read_tracked(workplace: Path, name: str) -> list[Any]:
    """Every MLflow run of a name."""
    client = MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lssl_ray")
    return list(client.search_runs([experiment.experiment_id], f"tags.`lssl.run` = '{name}'"))


def measure_pause(folder: Path, *, since: float) -> float:
    """Seconds from a fault (Unix time) to the next step that the run kept."""
    times = (row["time/unix_seconds"] for row in read_rows(folder / "metrics.jsonl"))
    return min(time for time in times if time > since) - since
