"""The engine without Ray on eight small videos: exact resume, and a bad file on the way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.engine import FeatureJob, LocalEngine, TrainJob
from lssl_ray.errors import DataError
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.training.checkpoint import find_latest_checkpoint
from lssl_ray.types import Progress
from lssl_ray.video.loader import iterate_batches
from lssl_ray.video.manifest import load_manifest

BuildConfig = Callable[..., RunConfig]
STATE = ("student", "teacher", "optimizer", "rng_rank_0")


def build_job(config: RunConfig, run_folder: Path) -> TrainJob:
    run_folder.mkdir(parents=True, exist_ok=True)
    return TrainJob(
        config=config,
        run_folder=run_folder,
        manifest=load_manifest(config.data.manifest).usable(),
        space=build.build_space(config, build.build_clip(config)),
    )


def read_rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def drop_clocks(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    clocks = ("data/clips_per_second", "data/wait_share", "time/", "data/decode", "data/batches")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]


def list_positions(config: RunConfig, *, start: int) -> list[tuple[int, ...]]:
    """Positions of each batch that a session starting there trains on."""
    manifest = load_manifest(config.data.manifest).usable()
    batches = iterate_batches(
        manifest,
        build.build_plan(config, num_videos=len(manifest)),
        start_position=start,
        clips_per_step=config.optim.clips_per_step,
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        num_decoders=1,
        device=torch.device("cpu"),
    )
    return [batch.positions for batch in batches]


@pytest.mark.parametrize("stop", [2, 3])
def test_local_engine_stop_and_resume_equals_straight_run_bit_for_bit(
    build_config: BuildConfig, tmp_path: Path, stop: int
) -> None:
    config = build_config("optim.epochs=3")  # 24 clips, 6 steps
    engine = LocalEngine()
    straight = engine.train(build_job(config, tmp_path / "straight"))
    halted = build_config("optim.epochs=3", f"run.stop_at_step={stop}")
    progress = engine.train(build_job(halted, tmp_path / "resumed"))
    assert (progress.step, progress.positions_done) == (stop, 4 * stop)
    torch.manual_seed(999)  # what else the process draws must not matter
    resumed = engine.train(build_job(config, tmp_path / "resumed"))
    assert resumed == straight == Progress(step=6, positions_done=24, clips_trained=24)
    folders = [find_latest_checkpoint(tmp_path / name) for name in ("straight", "resumed")]
    assert folders[0] is not None and folders[1] is not None
    assert folders[0].name == folders[1].name == "step_00000006"
    for name in STATE:
        a, b = (load_file(folder / f"{name}.safetensors") for folder in folders if folder)
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == [], name
    whole = list_positions(config, start=0)
    assert [p for step in whole for p in step] == list(range(24))
    assert list_positions(config, start=progress.positions_done) == whole[stop:]
    journals = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("straight", "resumed")]
    assert drop_clocks(journals[0]) == drop_clocks(journals[1])
    assert [row["step"] for row in journals[0]] == [1, 2, 3, 4, 5, 6]


def test_local_engine_training_changes_what_evaluation_sees(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    config = build_config("optim.epochs=1", "optim.teacher_momentum=[0.5, 0.5]")
    engine = LocalEngine()
    job = build_job(config, tmp_path)
    engine.train(job)
    checkpoint = find_latest_checkpoint(tmp_path)
    assert checkpoint is not None
    table = engine.extract_features(
        FeatureJob(
            config=config,
            manifest=job.manifest,
            views={"slow": EvaluationView(num_frames=2, size=32)},
            weights={"clip": None, "adapted": checkpoint / "teacher.safetensors"},
        )
    )
    difference = (table.joint("clip") - table.joint("adapted")).abs().max()
    assert 1e-4 < difference < 1
    engine.close()


def test_local_engine_truncated_video_is_quarantined_at_every_visit(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    videos = tiny.write_video_set(tmp_path / "own")
    damaged = tiny.truncate_video(videos.paths[3])
    config = build_config(f"data.manifest={videos.manifest}", "data.max_bad_fraction=0.5")
    progress = LocalEngine().train(build_job(config, tmp_path / "run"))
    assert progress == Progress(step=4, positions_done=16, clips_trained=14, clips_failed=2)
    rows = read_rows(tmp_path / "run" / "quarantine.jsonl")
    assert [(row["path"], row["epoch"]) for row in rows] == [(str(damaged), 0), (str(damaged), 1)]
    assert all(row["reason"] and row["step"] for row in rows)


def test_local_engine_too_many_bad_videos_end_the_run(
    build_config: BuildConfig, tmp_path: Path
) -> None:
    videos = tiny.write_video_set(tmp_path / "own")
    for path in videos.paths[:2]:
        tiny.truncate_video(path)
    config = build_config(f"data.manifest={videos.manifest}", "data.max_bad_fraction=0.2")
    with pytest.raises(DataError, match="4 of 16 clips"):
        LocalEngine().train(build_job(config, tmp_path / "run"))
