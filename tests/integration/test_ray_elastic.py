"""A run on a cluster that grows and shrinks under it: more workers, a notice, fewer workers.

Several raylets on this machine stand for machines. Clips take their time until the test has seen
what it waits for, so that the run is still on; nothing here depends on how long anything takes.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import bad_videos
import pytest
import tiny
import yaml
from several_nodes import Node, SeveralNodes, several_nodes
from started_process import StartedProcess

from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.audit import find_missing_and_repeated
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1500)]

CLIPS_PER_STEP, NUM_STEPS = 3, 150  # two workers take one clip and two
NOTICE_SECONDS = 20
DRAIN = """
import sys, time, ray
from lssl_ray.cluster.preemption import drain_node
from lssl_ray.preemption import Notice
ray.init(address="auto", log_to_driver=False)
drain_node(sys.argv[1], Notice("a test", time.time() + float(sys.argv[2])))
"""
TRAIN, DECODE = {"pool": "train"}, {"pool": "decode"}


@pytest.fixture
def workplace(tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet) -> Path:
    """Slow videos and a recipe whose checkpoints are far apart and whose failures are none."""
    bad_videos.write_good_videos(tmp_path / "v", [f"slow {number}.mp4" for number in range(8)])
    manifest, _ = index_videos([str(tmp_path / "v")], deadline_seconds=60.0)
    save_manifest(manifest, str(tmp_path / "videos.parquet"))
    (tmp_path / "v" / "slow").touch()
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
    values["run"] |= {"name": "run", "log_every": 1, "checkpoint_every": 10_000}
    values["data"] = {"manifest": str(tmp_path / "videos.parquet"), "audit": True}
    values["optim"] |= {
        "clips_per_step": CLIPS_PER_STEP,
        "epochs": 1000,
        "max_steps": NUM_STEPS,
    }
    values["cluster"] = {
        "address": "auto",
        "num_workers": [1, 2],
        "resize_seconds": 1.0,
        "train_labels": TRAIN,
        "decode_labels": DECODE,
        "max_failures": 0,
    }
    values["evaluation"] = {}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def read_metrics(workplace: Path) -> list[dict[str, Any]]:
    return list(read_rows(workplace / "runs" / "run" / "metrics.jsonl"))


def has_step_of(workplace: Path, *, num_workers: int, after: int) -> bool:
    return any(
        row["cluster/num_workers"] == num_workers and row["step"] > after
        for row in read_metrics(workplace)
    )


def list_asked(workplace: Path) -> list[int]:
    return [row["step"] for row in read_metrics(workplace) if "checkpoint/asked" in row]


def drain(cluster: SeveralNodes, name: str) -> None:
    command = [sys.executable, "-c", DRAIN, cluster.node_id(name), str(NOTICE_SECONDS)]
    subprocess.run(command, env=cluster.env, check=True, capture_output=True, timeout=300)


def test_run_grows_with_the_cluster_and_outlives_a_drained_node_with_every_clip_once(
    workplace: Path,
) -> None:
    path = {"PYTHONPATH": ":".join([str(bad_videos.SABOTAGE), *filter(None, sys.path)])}
    nodes = {"decode": Node(num_cpus=1, labels=DECODE)}
    with several_nodes(nodes, environment=path) as cluster:
        cluster.start_node("first", Node(num_cpus=1, labels=TRAIN))
        command = [sys.executable, "-m", "lssl_ray.cli", "train", "--config", "recipe.yaml"]
        with StartedProcess(workplace, command, environment=cluster.env) as run:
            run.wait_until(lambda: has_step_of(workplace, num_workers=1, after=1))
            cluster.start_node("second", Node(num_cpus=1, labels=TRAIN))
            run.wait_until(lambda: has_step_of(workplace, num_workers=2, after=1))
            (grown,) = list_asked(workplace)
            drain(cluster, "first")
            run.wait_until(lambda: has_step_of(workplace, num_workers=1, after=grown))
            (_, noticed) = list_asked(workplace)
            cluster.kill_node("first")
            (workplace / "v" / "slow").unlink()
            run.wait(seconds=600)
    rows = read_metrics(workplace)
    # The last checkpoints before the restarts are those that were asked for: no step is lost.
    workers = {row["step"]: row["cluster/num_workers"] for row in rows}
    sizes = [(1, grown), (2, noticed - grown), (1, NUM_STEPS - noticed)]
    assert list(workers.values()) == [size for size, count in sizes for _ in range(count)]
    assert sorted(workers) == list(range(1, NUM_STEPS + 1)) and 1 < grown < noticed < NUM_STEPS
    assert {row["cluster/nodes_leaving"] for row in rows if row["step"] == noticed} == {1}

    audit = list(read_rows(workplace / "runs" / "run" / "audit.jsonl"))
    num_positions = CLIPS_PER_STEP * NUM_STEPS
    assert find_missing_and_repeated(audit, num_positions=num_positions) == ([], [])
    by_step = defaultdict(list)
    for row in audit:
        by_step[row["step"]].append(sorted(row["trained"]))
    for step, shares in by_step.items():
        first = CLIPS_PER_STEP * (step - 1)
        assert sorted(position for share in shares for position in share) == [
            *range(first, first + 3)
        ]
        assert sorted(map(len, shares)) == ([3] if workers[step] == 1 else [1, 2])
    summary = json.loads((workplace / "runs" / "run" / "summary.json").read_text())
    assert summary["finished"] and summary["clips_trained"] == num_positions
    assert (summary["num_workers"], summary["num_workers_seen"]) == ([1, 2], [1, 2])
