"""Settings of objectives reach the training: schedules by step, heads by seed, whole runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.engine import LocalEngine, TrainJob, load_encoders
from lssl_ray.training.checkpoint import find_latest_checkpoint
from lssl_ray.training.health import CollapseRule
from lssl_ray.video.manifest import load_manifest

BuildConfig = Callable[..., RunConfig]


def test_build_schedules_follow_constant_linear_and_cosine(build_config: BuildConfig) -> None:
    config = build_config(
        "optim.max_steps=11", "optim.epochs=100", "objective.weight_align=0.7",
        "objective.weight_prior={shape: linear, start: 0, end: 1}",
        "objective.student_temperature={shape: cosine, start: 0.3, end: 0.1, until: 0.5}",
    )  # fmt: skip
    schedules = build.build_schedules(config, num_videos=8)
    assert [schedules.weight_align(step) for step in (0, 5, 10)] == [0.7] * 3
    assert [schedules.weight_prior(step) for step in (0, 5, 10)] == [0.0, 0.5, 1.0]
    # Half of 11 steps, rounded, are 6: the change ends at step 5, counted from 0.
    expected = [0.1 + 0.2 * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(6)]
    found = [schedules.student_temperature(step) for step in range(11)]
    assert found == pytest.approx([*expected, *[0.1] * 5])


def test_build_loop_settings_hold_health_and_parts(build_config: BuildConfig) -> None:
    config = build_config(
        "health.collapse=stop", "health.entropy_threshold=0.3", "health.windows=5",
        "optim.micro_batches=4",
    )  # fmt: skip
    settings = build.build_loop_settings(config, num_videos=8)
    assert settings.collapse == CollapseRule(action="stop", entropy_threshold=0.3, windows=5)
    assert settings.micro_batches == 4


def run(config: RunConfig, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    folder.mkdir(parents=True, exist_ok=True)
    job = TrainJob(
        config=config,
        run_folder=folder,
        manifest=load_manifest(config.data.manifest).usable(),
        space=build.build_space(config, build.build_clip(config)),
    )
    LocalEngine().train(job)
    checkpoint = find_latest_checkpoint(folder)
    assert checkpoint is not None
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    return checkpoint, [json.loads(row) for row in rows]


def test_local_engine_prototypes_run_resumes_and_leaves_a_plain_encoder(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    settings = [
        "objective.space=prototypes", "objective.num_prototypes=12", "objective.head_width=8",
        "objective.weight_prior={shape: linear, start: 0, end: 1}", "optim.micro_batches=2",
        "objective.prior_running_mean=0.5",
    ]  # fmt: skip
    straight, rows = run(build_config(*settings), tmp_path / "straight")
    assert [row["schedule/weight_prior"] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert {"loss/distill_prototypes", "loss/prior_prototypes"} < rows[0].keys()
    assert "loss/align" not in rows[0] and rows[0]["gradient_norm/head"] > 0
    run(build_config(*settings, "run.stop_at_step=1"), tmp_path / "resumed")
    torch.manual_seed(999)
    resumed, _ = run(build_config(*settings), tmp_path / "resumed")
    assert straight.name == resumed.name == "step_00000004"
    names = sorted(path.name for path in straight.glob("*.safetensors"))
    assert names == [
        "memory.safetensors", "optimizer.safetensors", "rng_rank_0.safetensors",
        "student.safetensors", "student_head.safetensors",
        "teacher.safetensors", "teacher_head.safetensors",
    ]  # fmt: skip
    for name in names:
        a, b = load_file(straight / name), load_file(resumed / name)
        assert a.keys() == b.keys() and a
        assert [key for key in a if not torch.equal(a[key], b[key])] == [], name
    config = build_config(*settings)
    weights = {"adapted": straight / "teacher.safetensors"}
    clip = build.build_clip(config)
    encoders = load_encoders(config, clip, weights, device=torch.device("cpu"))
    plain = load_file(straight / "teacher.safetensors")
    assert encoders["adapted"].state_dict().keys() == plain.keys()


def test_build_head_is_random_by_the_run_seed(build_config: BuildConfig) -> None:
    config = build_config("objective.space=prototypes", "objective.num_prototypes=12")
    student = build.build_encoder(config, build.build_clip(config))
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        head = build.build_head(config, student)
        assert head is not None
        heads.append(head.prototypes)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert build.build_head(build_config(), student) is None
