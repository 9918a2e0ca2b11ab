"""Runs with `run.storage` in one process: killed, moved to another machine, gone on with, used."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import object_store
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from typer.testing import CliRunner

import lssl_ray
from lssl_ray.cli import app
from lssl_ray.tracking.journal import read_rows

Train = Callable[..., str]
FINAL = "checkpoints/step_00000008"


@pytest.fixture
def train(tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs `lssl-ray train --local` in a working folder of its own name; what it wrote."""
    flags = ["--set", "optim.epochs=4", "--config", str(recipe_file)]

    def train(machine: str, *arguments: str, fails: bool = False) -> str:
        folder = tmp_path / machine
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        own = ["--set", f"run.folder={folder / 'runs'}", *flags]
        own = [] if "--resume" in arguments else own
        result = CliRunner().invoke(app, ["train", "--local", *own, *arguments])
        assert (result.exit_code != 0) == fails, result.output
        return result.output

    return train


def check_same_weights(checkpoint: Path, reference: Path) -> None:
    for name in ("student", "teacher", "optimizer"):
        ours = load_file(checkpoint / f"{name}.safetensors")
        theirs = load_file(reference / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.timeout(400)
def test_stored_run_goes_on_elsewhere_to_the_same_weights_in_the_same_mlflow_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = f"file://{tmp_path}/store"
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    kept = ("--set", f"run.storage={store}", "--set", f"tracking.uri={tracking}")
    train("reference", "--run-name", "straight")
    output = train("first", "--run-name", "mine", *kept, "--set", "run.stop_at_step=5")
    assert f"--resume {store}/mine" in output
    in_store = tmp_path / "store" / "mine"
    steps = ["step_00000004", "step_00000005"]
    assert sorted(path.name for path in (in_store / "checkpoints").iterdir()) == steps
    shutil.rmtree(tmp_path / "first")

    train("second", "--resume", f"{store}/mine", "--set", "run.stop_at_step=null")
    reference = tmp_path / "reference" / "runs" / "straight"
    copy = tmp_path / "second" / "runs" / "mine"
    for place in (copy, in_store):
        check_same_weights(place / FINAL, reference / FINAL)
        rows = list(read_rows(place / "metrics.jsonl"))
        assert [row["step"] for row in rows] == list(range(1, 9))
        summary = json.loads((place / "summary.json").read_text())
        assert summary["finished"] and (place / "artifacts" / "curves.png").is_file()
    client = MlflowClient(tracking_uri=tracking)
    experiment = client.get_experiment_by_name("lssl_ray")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    history = client.get_metric_history(tracked.info.run_id, "loss/total")
    assert sorted(metric.step for metric in history) == list(range(1, 9))

    shutil.rmtree(tmp_path / "second")
    with lssl_ray.load_model(f"{store}/mine") as model, lssl_ray.load_model(reference) as expected:
        texts = ["moving left"]
        assert torch.equal(model.encode_text(texts), expected.encode_text(texts))
        assert model.digest == expected.digest


@pytest.mark.timeout(400)
def test_run_in_a_bucket_is_taken_over_and_the_copy_left_behind_catches_up(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store.serve_bucket() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = f"s3://{object_store.BUCKET}/runs"
        train("reference", "--run-name", "straight")
        keep = ("--set", f"run.storage={store}")
        train("first", "--run-name", "mine", *keep, "--set", "run.stop_at_step=3")
        assert "holds a run already" in train("third", "--run-name", "mine", *keep, fails=True)
        train("second", "--resume", f"{store}/mine", "--set", "run.stop_at_step=6")
        # The first machine's copy is older than the store, which wins.
        first = tmp_path / "first" / "runs" / "mine"
        assert [row["step"] for row in read_rows(first / "metrics.jsonl")] == [1, 2, 3]
        train("first", "--resume", "mine", "--set", "run.stop_at_step=null")
    check_same_weights(first / FINAL, tmp_path / "reference" / "runs" / "straight" / FINAL)
    assert [row["step"] for row in read_rows(first / "metrics.jsonl")] == list(range(1, 9))
    assert not [name for name in os.listdir(first.parent) if name.startswith(".")]
