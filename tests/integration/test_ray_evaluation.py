"""Evaluation beside training on Ray: a killed actor and a killed driver lose no checkpoint."""

import json
import signal
from pathlib import Path

import pytest
import tiny
import yaml
from mlflow import MlflowClient
from run_process import RunProcess

from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.checkpoint import find_damage
from lssl_ray.training.holding import list_held
from lssl_ray.validation.records import read_evaluations

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(400)]

ACTOR = "ValidatorActor"
KEY = "validation/test/zero_shot"
NUM_STEPS, EVERY = 40, 10


def test_ray_run_evaluates_every_checkpoint_through_kills(
    tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> None:
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
    values["run"] |= {"checkpoint_every": EVERY, "checkpoints_to_keep": 1}
    values["data"] |= {"hold_back": 2}
    values["optim"] |= {"epochs": 1000, "max_steps": NUM_STEPS}
    values["tracking"] = {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    folder = tmp_path / "runs" / "beside"
    flags = ("--set", "evaluation.every_checkpoints=1", "--set", f"evaluation.best={KEY}")
    arguments = ("--config", "recipe.yaml", "--run-name", "beside", *flags)
    with RunProcess(tmp_path, *arguments) as run:
        run.wait_until(lambda: bool(run.find_descendants(ACTOR)) and bool(list_held(folder)))
        (actor,) = run.find_descendants(ACTOR)
        actor.kill()
        run.wait_until(
            lambda: bool([one for one in run.find_descendants(ACTOR) if one.pid != actor.pid])
        )
        family = run.find_descendants("")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        run.wait_for_end(family)
    done = {row["step"] for row in read_evaluations(folder)}
    assert list_held(folder) and len(done) < NUM_STEPS // EVERY, "killed too late to prove it"
    with RunProcess(tmp_path, "--resume", "beside") as run:
        run.wait()

    steps = [row["step"] for row in read_evaluations(folder)]
    assert sorted(steps) == list(range(EVERY, NUM_STEPS + 1, EVERY))
    trained = [row["step"] for row in read_rows(folder / "metrics.jsonl") if "num_steps" in row]
    assert trained == list(range(1, NUM_STEPS + 1))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["validation"]["not_evaluated"] == []
    assert not (folder / "validation").exists()
    scores = {row["step"]: row[KEY] for row in read_evaluations(folder)}
    best = summary["validation"]["best"]
    assert best["step"] == min(one for one in scores if scores[one] == max(scores.values()))
    assert find_damage(folder / "best") is None
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lssl_ray")
    (tracked,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(tracked.info.run_id, KEY)
    assert {metric.step: metric.value for metric in history} == pytest.approx(scores)
    assert len(history) == len(scores)
