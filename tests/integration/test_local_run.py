"""Whole runs of the command on eight tiny videos, without Ray: files, statuses, interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.config import load_config
from lssl_ray.tracking.journal import read_rows
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest

CHECKPOINT = {
    "checkpoint.json",
    "memory.safetensors",
    "optimizer.safetensors",
    "progress.json",
    "rng_rank_0.safetensors",
    "run_config.yaml",
    "student.safetensors",
    "teacher.safetensors",
}
ARTIFACTS = {
    "clip_order.json",
    "concept_space.safetensors",
    "contact_sheet.png",
    "curves.png",
    "zero_shot_test.json",
    "zero_shot_test.png",
}
RECORDS = {"run_config.yaml", "summary.json", "metrics.jsonl", "quarantine.jsonl"}
OTHERS = {"logs/run.log", "tracking/run.json"}


class Workplace:
    """A folder to run the command in, with a recipe and an MLflow store of its own."""

    def __init__(self, folder: Path, recipe: Path) -> None:
        self.folder = folder
        self.recipe = recipe
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.run = folder / "runs" / "run"

    def start(self, *overrides: str) -> list[str]:
        return ["train", "--local", "--config", str(self.recipe), *self.flags(*overrides)]

    def resume(self, *overrides: str) -> list[str]:
        return ["train", "--local", "--resume", "run", *self.flags(*overrides)]

    def flags(self, *overrides: str) -> list[str]:
        settings = (f"tracking.uri={self.uri}", *overrides)
        return [flag for setting in settings for flag in ("--set", setting)]

    def execute(self, arguments: list[str]) -> Result:
        """The command in this process, to its end."""
        return CliRunner().invoke(app, arguments)

    def succeed(self, arguments: list[str]) -> str:
        """The same, when it must go well; what it wrote."""
        result = self.execute(arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    @contextmanager
    def running(self, arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
        """The command in a process group of its own, as a shell would start it."""
        with subprocess.Popen(
            [sys.executable, "-m", "lssl_ray.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
            # A suite started in the background has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def wait_for_step(self, step: int, process: "subprocess.Popen[str]") -> None:
        while process.poll() is None:
            rows = list(read_rows(self.run / "metrics.jsonl"))
            if rows and rows[-1]["step"] >= step:
                return
            time.sleep(0.02)
        pytest.fail(f"ended before step {step}: {process.communicate()}")

    def tracked(self) -> Run:
        """The one run of the store."""
        client = MlflowClient(tracking_uri=self.uri)
        (experiment,) = [e for e in client.search_experiments() if e.name == "lssl_ray"]
        (run,) = client.search_runs([experiment.experiment_id])
        return run

    def tracked_steps(self) -> list[int]:
        client = MlflowClient(tracking_uri=self.uri)
        history = client.get_metric_history(self.tracked().info.run_id, "loss/total")
        return sorted(metric.step for metric in history)

    def tracked_files(self) -> set[str]:
        client = MlflowClient(tracking_uri=self.uri)
        return {item.path for item in client.list_artifacts(self.tracked().info.run_id)}

    def journal_steps(self) -> list[int]:
        return [row["step"] for row in read_rows(self.run / "metrics.jsonl")]

    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return summary


@pytest.fixture
def workplace(tmp_path: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path, recipe_file)


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_train_small_run_leaves_exactly_the_promised_files(workplace: Workplace) -> None:
    with workplace.running(workplace.start()) as process:
        output, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, ""), output
    checkpoints = {
        f"checkpoints/step_0000000{step}/{name}" for step in (2, 4) for name in CHECKPOINT
    }
    artifacts = {f"artifacts/{name}" for name in ARTIFACTS}
    assert list_files(workplace.run) == RECORDS | OTHERS | artifacts | checkpoints

    summary = workplace.summary()
    expected = {
        "version": 1,
        "run": "run",
        "finished": True,
        "steps": 4,
        "num_steps": 4,
        "videos": 8,
        "clips_trained": 16,
        "clips_failed": 0,
        "steps_skipped": 0,
        "quarantined": {"total": 0},
        "tracking_calls_failed": 0,
        "seed": 0,
        "num_workers": 1,
    }
    assert {key: summary[key] for key in expected} == expected
    assert summary["zero_shot"]["test"]["videos"] == 8
    assert set(summary["zero_shot"]["test"]["per_class"]) == set(tiny.ACTIONS)
    assert 0 <= summary["data_wait_share"] <= 1
    assert summary["versions"]["lssl_ray"] and summary["versions"]["torch"]
    assert len(summary["manifest_digest"]) == 64
    assert (
        json.loads((workplace.run / "artifacts" / "zero_shot_test.json").read_text())
        == (summary["zero_shot"]["test"])
    )
    assert workplace.journal_steps() == [1, 2, 3, 4]
    assert load_config(workplace.run / "run_config.yaml").run.name == "run"
    for picture in (workplace.run / "artifacts").glob("*.png"):
        with Image.open(picture) as image:
            assert image.getextrema() != ((255, 255),) * 3
    for part in (str(workplace.run), "4 of 4 steps, 16 clips", "mlflow ui"):
        assert part in output

    tracked = workplace.tracked()
    assert tracked.info.status == "FINISHED"
    assert tracked.info.run_name == "run"
    assert workplace.tracked_steps() == [1, 2, 3, 4]
    assert workplace.tracked_files() >= ARTIFACTS | RECORDS - {"quarantine.jsonl"}
    assert tracked.data.params["optim.clips_per_step"] == "4"
    top1 = summary["zero_shot"]["test"]["adapted_top1"]
    assert tracked.data.metrics["zero_shot/test/adapted"] == pytest.approx(top1 / 100, abs=1e-4)


@pytest.mark.timeout(240)
def test_train_stopped_in_every_way_goes_on_in_the_same_tracked_run(workplace: Workplace) -> None:
    """Stop on purpose, Ctrl-C, a terminated job, and then to the end."""
    output = workplace.succeed(workplace.start("optim.epochs=10", "run.stop_at_step=3"))
    assert f"--resume {workplace.run} --set run.stop_at_step=null" in output
    assert not workplace.summary()["finished"]
    first = workplace.tracked()
    assert first.info.status == "SCHEDULED"

    with workplace.running(workplace.resume("run.stop_at_step=null")) as process:
        workplace.wait_for_step(5, process)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert family and not [child for child in family if child.is_running()]
    assert workplace.tracked().info.status == "KILLED"
    assert workplace.tracked().info.run_id == first.info.run_id

    with workplace.running(workplace.resume()) as process:
        workplace.wait_for_step(9, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()  # what a cluster's scheduler does, to the driver only
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "Traceback" not in errors
    assert family and not [child for child in family if child.is_running()]
    assert workplace.tracked().info.status == "KILLED"
    assert max(workplace.journal_steps()) < 20

    workplace.succeed(workplace.resume())
    assert workplace.summary()["finished"]
    assert workplace.summary()["clips_trained"] == 80
    assert workplace.journal_steps() == list(range(1, 21))
    last = workplace.tracked()
    assert (last.info.status, last.info.run_id) == ("FINISHED", first.info.run_id)
    assert workplace.tracked_steps() == list(range(1, 21))


def test_train_second_run_of_a_name_is_refused_and_the_first_untouched(
    workplace: Workplace,
) -> None:
    command = workplace.start("optim.max_steps=1")
    workplace.succeed(command)
    before = {name: (workplace.run / name).read_bytes() for name in list_files(workplace.run)}
    refused = workplace.execute(command)
    assert refused.exit_code == 2
    for way_out in ("--resume", "--run-name", "--overwrite"):
        assert way_out in refused.stderr
    after = {name: (workplace.run / name).read_bytes() for name in list_files(workplace.run)}
    assert after == before


def test_train_with_too_many_bad_clips_fails_and_says_so(
    workplace: Workplace, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    for label in tiny.ACTIONS:
        tiny.write_video(videos / label / "0.mp4", tiny.paint_frames(label))
    manifest, _ = index_videos([str(videos)], labels="folders", deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "clips.parquet"))
    tiny.truncate_video(videos / tiny.ACTIONS[0] / "0.mp4")
    overrides = [
        f"data.manifest={tmp_path / 'clips.parquet'}",
        "data.max_bad_fraction=0.2",
        "evaluation.manifests={}",
        f"tracking.uri={workplace.uri}",
    ]
    flags = [flag for override in overrides for flag in ("--set", override)]
    result = CliRunner().invoke(
        app, ["train", "--local", "--config", str(workplace.recipe), *flags]
    )
    assert result.exit_code == 2, result.output
    assert "data.max_bad_fraction=0.2" in result.stderr
    rows = list(read_rows(workplace.run / "quarantine.jsonl"))
    assert {row["video_id"] for row in rows} == {f"{tiny.ACTIONS[0]}/0.mp4"}
    assert workplace.tracked().info.status == "FAILED"

    # With a larger budget the run goes on where it was.
    workplace.succeed(workplace.resume("data.max_bad_fraction=0.5"))
    summary = workplace.summary()
    assert summary["finished"]
    assert summary["clips_failed"] == summary["quarantined"]["train"] == 2
    assert summary["clips_trained"] == 6
    assert workplace.tracked().info.status == "FINISHED"
