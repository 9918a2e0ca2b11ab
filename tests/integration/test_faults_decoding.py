"""A decode child that is killed from outside, on Ray: it costs at most the clip in its hands.

What bad files do to decoders is in `test_bad_videos_ray.py`; whole decoders and their nodes go in
`test_faults_nodes.py`.
"""

import json
from pathlib import Path

import psutil
import pytest
import tiny
from fault_runs import NUM_STEPS, WAIT_SECONDS, count_events, write_recipe
from run_checks import CLIPS_PER_STEP, check_each_clip_once, count_rows
from run_process import RunProcess

from lssl_ray.tracking.journal import read_rows


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(WAIT_SECONDS + 100)
def test_killed_decode_child_is_replaced_and_costs_at_most_its_clip(
    tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> None:
    write_recipe(tmp_path, tiny_clip_dir, videos, cluster={})
    folder, num_killed = tmp_path / "runs" / "run", 3
    budget = ("--set", "data.max_bad_fraction=0.5")
    with RunProcess(tmp_path, "--config", "recipe.yaml", "--run-name", "run", *budget) as run:
        killed: set[psutil.Process] = set()
        while len(killed) < num_killed:
            run.wait_until(
                lambda: count_rows(folder) >= 10 + 20 * len(killed), seconds=WAIT_SECONDS
            )
            children = run.find_descendants("lssl_ray.video.decode_child")
            for child in set(children) - killed:
                child.kill()
                killed.add(child)
        run.wait(seconds=WAIT_SECONDS)
    check_each_clip_once(folder, num_steps=NUM_STEPS)
    lost = list(read_rows(folder / "quarantine.jsonl"))
    assert len(lost) <= len(killed)
    assert {row["reason"] for row in lost} <= {"decoder_crashed"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["clips_failed"] == len(lost)
    assert summary["clips_trained"] == CLIPS_PER_STEP * NUM_STEPS - len(lost)
    assert count_events(folder, "restart") == 0
