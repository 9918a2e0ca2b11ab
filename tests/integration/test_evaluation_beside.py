"""Evaluation beside training without Ray, as a user starts it: figures, the best, and kills."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
import torch
import yaml
from evaluate_command import execute, read, refuse
from run_process import RunProcess
from safetensors.torch import load_file

import lssl_ray
from lssl_ray.evaluation.label_free import SCORE_NAMES
from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.checkpoint import find_damage
from lssl_ray.training.holding import list_held
from lssl_ray.validation.records import read_evaluations
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import load_manifest

CHILD = "lssl_ray.validation.child"
KEY = "validation/test/zero_shot"
BESIDE = ("evaluation.every_checkpoints=1", f"evaluation.best={KEY}")
NUM_KILLED_STEPS = 40


def write_recipe(folder: Path, clip: Path, videos: tiny.VideoSet, **sections: Any) -> Path:
    values = tiny.build_recipe_values(clip, videos, run_folder=folder / "runs")
    values["run"] |= {"checkpoint_every": 2, "checkpoints_to_keep": 1}
    values["data"] |= {"hold_back": 2}
    # Far and fast, so that checkpoints differ in what they see.
    values["optim"] |= {"learning_rate": 0.05, "temporal_rate_factor": 200.0}
    values["optim"] |= {"epochs": 100, "max_steps": 6, "teacher_momentum": [0.2, 0.2]}
    for section, changes in sections.items():
        values[section] |= changes
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def has_ended(process: psutil.Process) -> bool:
    """Gone, or waiting for a busy init to take note."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def train(recipe: Path, name: str, *overrides: str) -> str:
    flags = [flag for override in overrides for flag in ("--set", override)]
    return execute("train", "--local", "--config", recipe, "--run-name", name, *flags)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tiny.VideoSet:
    """Videos of which one was cut after it was indexed."""
    videos = tiny.write_video_set(tmp_path_factory.mktemp("damaged"))
    tiny.truncate_video(videos.paths[3])
    return videos


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_clip_dir: Path,
    videos: tiny.VideoSet,
    damaged: tiny.VideoSet,
) -> Path:
    """Two runs of one recipe: `plain`, and `beside` with evaluations."""
    folder = tmp_path_factory.mktemp("beside")
    splits = {"test": str(videos.manifest), "damaged": str(damaged.manifest)}
    recipe = write_recipe(folder, tiny_clip_dir, videos, evaluation={"manifests": splits})
    train(recipe, "plain")
    (folder / "output.txt").write_text(train(recipe, "beside", *BESIDE))
    return folder / "runs"


def test_evaluation_beside_leaves_training_equal_to_the_bit(runs: Path) -> None:
    for name in ("student", "teacher", "optimizer"):
        one, two = (
            load_file(runs / run / "checkpoints" / "step_00000006" / f"{name}.safetensors")
            for run in ("plain", "beside")
        )
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


def test_evaluation_beside_files_every_checkpoint_once(runs: Path) -> None:
    rows = list(read_evaluations(runs / "beside"))
    assert [row["step"] for row in rows] == [2, 4, 6]
    wanted = {f"validation/{split}/{name}" for split in ("test", "damaged") for name in
              ("zero_shot", "knn")}  # fmt: skip
    wanted |= {f"held_back/{name}" for name in SCORE_NAMES}
    for row in rows:
        assert wanted <= row.keys()
    summary = json.loads((runs / "beside" / "summary.json").read_text())
    points = summary["validation"]["points"]
    assert [(point["step"], point[KEY]) for point in points] == [
        (row["step"], row[KEY]) for row in rows
    ]
    assert summary["validation"]["not_evaluated"] == []
    assert (summary["videos"], summary["videos_held_back"]) == (6, 2)
    assert list(read_evaluations(runs / "plain")) == []


def test_evaluation_beside_last_figure_is_that_of_the_end(runs: Path) -> None:
    summary = json.loads((runs / "beside" / "summary.json").read_text())
    last = summary["validation"]["points"][-1]
    for split in ("test", "damaged"):
        at_the_end = summary["zero_shot"][split]["adapted_top1"] / 100
        assert last[f"validation/{split}/zero_shot"] == pytest.approx(at_the_end, abs=1e-4)


def test_evaluation_beside_leaves_only_the_best_behind(runs: Path) -> None:
    beside, plain = (
        {str(path.relative_to(runs / name)) for path in (runs / name).rglob("*") if path.is_file()}
        for name in ("beside", "plain")
    )
    checkpoint = {path.partition("/")[2] for path in plain if path.startswith("checkpoints/")}
    files = {path.partition("/")[2] for path in checkpoint} | {"best.json"}
    assert beside - plain == {f"best/{name}" for name in files}
    assert plain < beside


def test_best_checkpoint_is_whole_and_scores_what_its_row_says(
    runs: Path, videos: tiny.VideoSet
) -> None:
    best = json.loads((runs / "beside" / "best" / "best.json").read_text())
    rows = {row["step"]: row[KEY] for row in read_evaluations(runs / "beside")}
    assert best["value"] == max(rows.values()) == rows[best["step"]]
    assert best["step"] == min(step for step, value in rows.items() if value == best["value"])
    assert find_damage(runs / "beside" / "best") is None
    # An independent way to the same number, through the model for use.
    with lssl_ray.load_model(runs / "beside" / "best", device="cpu") as model:
        assert model.labels is not None and f"step {best['step']}" in model.name
        found = model.classify([str(path) for path in videos.paths], model.labels, top_k=1)
    right = [one.labels[0] == Path(one.path).parent.name for one in found]
    assert sum(right) / len(right) == pytest.approx(best["value"])


def test_best_checkpoint_can_be_evaluated(
    runs: Path, videos: tiny.VideoSet, tmp_path: Path
) -> None:
    best = json.loads((runs / "beside" / "best" / "best.json").read_text())
    execute(
        *("evaluate", runs / "beside" / "best", videos.manifest),
        *("--local", "--out", tmp_path / "report", "--no-cache"),
    )
    report = read(tmp_path / "report")
    adapted = report["outcomes"][0]["models"]["adapted"]["top1_percent"]
    assert adapted / 100 == pytest.approx(best["value"], abs=1e-4)


def test_undecodable_validation_video_is_quarantined_once(
    runs: Path, damaged: tiny.VideoSet
) -> None:
    rows = [
        row for row in read_rows(runs / "beside" / "quarantine.jsonl") if row["stage"] == "validate"
    ]
    assert [(row["path"], row["step"]) for row in rows] == [(str(damaged.paths[3]), 2)]


def test_display_shows_figures_and_the_best(runs: Path) -> None:
    text = (runs.parent / "output.txt").read_text()
    for step in (2, 4, 6):
        (line,) = [line for line in text.splitlines() if f"step {step}:" in line]
        assert "test zero-shot" in line and f"{len(SCORE_NAMES)} label-free" in line
    assert str(runs / "beside" / "best") in text


def test_held_back_videos_are_never_trained_on_and_cost_figures_only(
    tmp_path: Path, tiny_clip_dir: Path
) -> None:
    videos = tiny.write_video_set(tmp_path / "own")
    _, held_back = split_held_back(load_manifest(str(videos.manifest)), num_held_back=3)
    for record in held_back.records():
        tiny.truncate_video(Path(record.path))
    recipe = write_recipe(
        tmp_path, tiny_clip_dir, videos, data={"hold_back": 3}, evaluation={"manifests": {}}
    )
    text = train(recipe, "run", "evaluation.every_checkpoints=9")
    summary = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())
    assert (summary["videos"], summary["clips_failed"]) == (5, 0)
    assert summary["clips_trained"] == 24
    given_up = summary["validation"]["not_evaluated"]
    assert [one["step"] for one in given_up] == [6] and "decoded" in given_up[0]["reason"]
    assert "Not evaluated: 1" in text
    overrides = ("--set", "data.hold_back=8", "--run-name", "other")
    text = refuse("train", "--local", "--config", recipe, *overrides)
    assert "hold_back" in text


@pytest.mark.timeout(240)
def test_killed_validator_and_killed_run_lose_no_evaluation(
    tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> None:
    write_recipe(tmp_path, tiny_clip_dir, videos, optim={"max_steps": NUM_KILLED_STEPS})
    folder = tmp_path / "runs" / "run"
    flags = [flag for override in BESIDE for flag in ("--set", override)]
    with RunProcess(tmp_path, "--local", "--config", "recipe.yaml", *flags) as run:
        run.wait_until(lambda: bool(run.find_descendants(CHILD)) and len(list_held(folder)) > 2)
        (child,) = run.find_descendants(CHILD)
        child.kill()
        run.wait_until(
            lambda: bool([one for one in run.find_descendants(CHILD) if one.pid != child.pid])
        )
        family = run.find_descendants("")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        left = psutil.wait_procs(family, timeout=20)[1]
        assert [one for one in left if not has_ended(one)] == []
    waiting = len(list_held(folder))
    assert waiting > 2, "evaluations were done too early to prove anything"
    with RunProcess(tmp_path, "--local", "--resume", "run") as run:
        run.wait()
    steps = [row["step"] for row in read_evaluations(folder)]
    assert sorted(steps) == list(range(2, NUM_KILLED_STEPS + 1, 2))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["validation"]["not_evaluated"] == []
    assert not (folder / "validation").exists()
