"""Bad files on Ray, two workers and two decoders: exactly their clips are lost, no other twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import bad_videos
import pytest
import tiny
import yaml
from bad_videos import count_lost, read_quarantine, visits

from lssl_ray.tracking.journal import read_rows
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest

NUM_EPOCHS = 2
DEADLINE_SECONDS = 5.0
WAIT_SECONDS = 300


def run_on_ray(folder: Path) -> str:
    """`lssl-ray train` with a Ray of its own, whose decoders are sabotaged; what it wrote."""
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lssl_ray.cli", "train", "--config", "recipe.yaml"],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(bad_videos.SABOTAGE), *sys.path]),
                "RAY_USAGE_STATS_ENABLED": "0",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            start_new_session=True,
        )
    try:
        code = process.wait(WAIT_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert code == 0, output.read_text()
    return output.read_text()


@pytest.mark.cluster
@pytest.mark.timeout(WAIT_SECONDS + 100)
def test_ray_run_over_crashing_hanging_and_vanished_files_loses_only_them(
    tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> None:
    good = [f"good {number}.mp4" for number in range(8)]
    bad = ["cut.mp4", "gone.mp4", "hang.mp4", "segfault.mp4"]
    bad_videos.write_good_videos(tmp_path / "v", good + bad)
    manifest, _ = index_videos([str(tmp_path / "v")], deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "own.parquet"))
    tiny.truncate_video(tmp_path / "v" / "cut.mp4")
    (tmp_path / "v" / "gone.mp4").unlink()

    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
    values["run"]["name"] = "run"
    values["data"] = {
        "manifest": str(tmp_path / "own.parquet"),
        "max_bad_fraction": 0.5,
        "decode_deadline_seconds": DEADLINE_SECONDS,
    }
    values["cluster"] = {"num_workers": 2, "num_decoders": 2}
    values["evaluation"] = {"manifests": {}}
    values["optim"]["epochs"] = NUM_EPOCHS
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    text = run_on_ray(tmp_path)

    run = tmp_path / "runs" / "run"
    assert count_lost(run) == visits(bad, epochs=NUM_EPOCHS)
    first = [row for row in read_quarantine(run, "train") if row["epoch"] == 0]
    assert {row["video_id"]: row["reason"] for row in first} == {
        "cut.mp4": "not_a_video",
        "gone.mp4": "missing",
        "hang.mp4": "deadline_exceeded",
        "segfault.mp4": "decoder_crashed",
    }
    # Workers refuse clips that are not the plan's, so the right number is the right clips.
    summary = json.loads((run / "summary.json").read_text())
    assert summary["finished"] and summary["quarantined"]["train"] == len(bad) * NUM_EPOCHS
    assert summary["clips_trained"] == len(good) * NUM_EPOCHS
    assert summary["clips_failed"] == len(bad) * NUM_EPOCHS
    rows = list(read_rows(run / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, summary["num_steps"] + 1))
    assert "Traceback" not in text
