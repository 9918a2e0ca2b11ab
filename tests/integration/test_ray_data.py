"""Ray Data under test: exact order and split, segments, placement, kills, another worker count.

One Ray of three small nodes in this process for what needs no training, and one run of the command
line that is killed, resumed and resized. Only processes started here are ended.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tiny
import yaml
from ray.cluster_utils import Cluster
from run_process import RunProcess

from lssl_ray.cluster.data import ClipStream
from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.placement import require_nodes
from lssl_ray.cluster.store import StoreReader
from lssl_ray.cluster.train import iterate_blocks
from lssl_ray.errors import ClusterError
from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.audit import find_missing_and_repeated
from lssl_ray.video.manifest import Manifest, build_manifest, load_manifest, save_manifest
from lssl_ray.video.order import RunPlan
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    # Ray's own, of several kinds, in a process that pytest runs in.
    pytest.mark.filterwarnings("default"),
]

CLIPS_PER_WORKER, NUM_WORKERS, NUM_STEPS, START = 3, 2, 11, 12
NUM_POSITIONS = START + NUM_STEPS * NUM_WORKERS * CLIPS_PER_WORKER - 4  # the last step is short
DECODE_LABELS = {"lssl-test-pool": "decode"}
CRASHING_VIDEO = 5
RECIPE = ViewRecipe(
    global_views=ViewKind(count=1, num_frames=2, size=8, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=0, num_frames=1, size=8, area=(0.1, 0.4), window_share=0.5),
    window_seconds=1.0,
    flip_probability=0.0,
    jitter_probability=0.0,
    jitter_strength=(0.0, 0.0, 0.0),
    grey_probability=0.0,
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """A connected Ray of a head and two labelled nodes; pool to node id."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, sys.path)]))
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        try:
            pools = {}
            for pool in ("decode", "train"):
                node = cluster.add_node(num_cpus=2, labels={"lssl-test-pool": pool})
                pools[pool] = node.node_id
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield pools
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture(scope="module")
def manifest(videos: tiny.VideoSet) -> Manifest:
    """Eight videos, one of which kills its decoder."""
    records = load_manifest(str(videos.manifest)).records()
    records[CRASHING_VIDEO] = replace(records[CRASHING_VIDEO], path="/nowhere/crash")
    return build_manifest(records, root="/")


def build_stream(num_videos: int) -> ClipStream:
    return ClipStream(
        plan=RunPlan(num_videos=num_videos, num_positions=NUM_POSITIONS, seed=4),
        start_position=START,
        num_steps=NUM_STEPS,
        num_workers=NUM_WORKERS,
        clips_per_step=NUM_WORKERS * CLIPS_PER_WORKER,
        recipe=RECIPE,
        settings=DecodeSettings(
            deadline_seconds=30.0, recycle_after=5, short_side=64, child_module="delaying_child"
        ),
        num_decoders=2,
        decode_memory_mib=256,
        max_segment_units=8,  # 4 steps: three segments
    )


def consume(stream: ClipStream, desk: Any) -> list[list[dict[str, Any]]]:
    """Each worker's blocks, taken at random speeds by a thread per worker."""
    taken: list[list[dict[str, Any]]] = [[] for _ in range(NUM_WORKERS)]

    def take(rank: int) -> None:
        rng = np.random.default_rng(rank)
        for columns in iterate_blocks(stream, rank=rank, desk=desk):
            kept = ("position", "decoded", "video_id", "reason", "tried")
            taken[rank].append({name: np.array(columns[name]) for name in kept})
            time.sleep(rng.uniform(0.0, 0.02))

    threads = [threading.Thread(target=take, args=(rank,)) for rank in range(NUM_WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


@pytest.fixture(scope="module")
def taken(
    nodes: dict[str, str], manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> list[list[dict[str, Any]]]:
    """What two workers took in a session of three segments."""
    folder = tmp_path_factory.mktemp("desk")
    desk = open_desk(folder, manifest, decode_labels=DECODE_LABELS)
    return consume(build_stream(len(manifest)), desk)


def test_each_worker_gets_exactly_its_units_whatever_the_delays(
    taken: list[list[dict[str, Any]]], manifest: Manifest
) -> None:
    order = {
        epoch: np.random.default_rng([4, 0, epoch]).permutation(len(manifest))
        for epoch in range(NUM_POSITIONS // len(manifest) + 1)
    }
    outcomes = []
    for rank, blocks in enumerate(taken):
        assert len(blocks) == NUM_STEPS
        for step, block in enumerate(blocks):
            first = START + (step * NUM_WORKERS + rank) * CLIPS_PER_WORKER
            due = [p if p < NUM_POSITIONS else -1 for p in range(first, first + CLIPS_PER_WORKER)]
            assert block["position"].tolist() == due
            for row, position in enumerate(due):
                if position < 0:
                    assert not block["decoded"][row] and not block["reason"][row]
                    continue
                epoch, offset = divmod(position, len(manifest))
                video = int(order[epoch][offset])
                assert block["video_id"][row] == manifest.row(video).video_id
                assert bool(block["decoded"][row]) == (video != CRASHING_VIDEO)
                if video == CRASHING_VIDEO:
                    outcomes.append((block["reason"][row], bool(block["tried"][row])))
    # Every visit of the video that kills is there once, whoever decoded it.
    expected = sum(
        order[p // len(manifest)][p % len(manifest)] == CRASHING_VIDEO
        for p in range(START, NUM_POSITIONS)
    )
    assert len(outcomes) == expected
    assert {reason for reason, _ in outcomes} == {"decoder_crashed"}


def test_decoders_run_on_nodes_with_the_labels(
    taken: list[list[dict[str, Any]]], nodes: dict[str, str]
) -> None:
    actors = ray._private.state.actors().values()
    decoders = [actor for actor in actors if "DecodeUnits" in actor["ActorClassName"]]
    assert len(decoders) == 6  # two for each of three segments
    # A dead actor may have lost its address.
    assert {actor["Address"]["NodeID"] for actor in decoders} <= {nodes["decode"], ""}


def test_labels_that_no_node_has_are_refused_at_once(nodes: dict[str, str]) -> None:
    require_nodes({"cluster.train_labels": {}})
    require_nodes({"cluster.train_labels": {"lssl-test-pool": "train"}})
    with pytest.raises(ClusterError, match=r"cluster.decode_labels.*lssl-test-pool=decode"):
        require_nodes({"cluster.decode_labels": {"lssl-test-pool": "gpu"}})


def test_store_reader_tells_use_and_spilling(nodes: dict[str, str]) -> None:
    kept = ray.put(np.zeros(20 * 2**20, dtype=np.uint8))
    figures = StoreReader().read()
    assert figures["data/store_mib_used"] >= 20.0
    assert figures["data/store_mib_spilled"] == 0.0
    assert figures["data/store_readings_failed"] == 0.0
    del kept


LAST_STEP, SHARED_FOLDER = 46, "runs/resized"


@pytest.fixture
def workplace(tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet) -> Path:
    """A recipe for two workers, segments of 14 steps, and a video that does not decode."""
    records = load_manifest(str(videos.manifest)).records()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(records[2].path).read_bytes())
    records[2] = replace(records[2], path=str(tiny.truncate_video(broken)))
    save_manifest(build_manifest(records, root="/"), str(tmp_path / "videos.parquet"))
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": 7}
    values["data"] = {
        "manifest": str(tmp_path / "videos.parquet"),
        "audit": True,
        "max_bad_fraction": 0.5,
    }
    values["optim"] |= {"epochs": 1000, "max_steps": LAST_STEP}
    values["cluster"] = {"num_workers": 2, "num_decoders": 2, "segment_units": 28}
    values["evaluation"] = {}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def last_step(folder: Path) -> int:
    return max((row["step"] for row in read_rows(folder / "metrics.jsonl")), default=0)


@pytest.mark.long
def test_killed_resumed_and_resized_run_trains_every_clip_of_every_epoch_once(
    workplace: Path,
) -> None:
    folder = workplace / SHARED_FOLDER
    with RunProcess(workplace, "--config", "recipe.yaml", "--run-name", "resized") as run:
        run.wait_until(lambda: last_step(folder) >= 12)
        workers = run.find_descendants("RayTrainWorker")
        workers[-1].kill()
        run.wait_until(lambda: not {*run.find_descendants("RayTrainWorker")} & {*workers})
        run.wait_until(lambda: last_step(folder) >= 16)
        descendants = run.find_descendants("")
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
        assert last_step(folder) < LAST_STEP, "killed too late to prove anything"
        run.wait_for_end(descendants)
    settings = ("--set", "cluster.num_workers=1", "--set", "run.stop_at_step=28")
    with RunProcess(workplace, "--resume", SHARED_FOLDER, *settings) as run:
        run.wait()
    settings = ("--set", "cluster.num_workers=2", "--set", "run.stop_at_step=null")
    with RunProcess(workplace, "--resume", SHARED_FOLDER, *settings) as run:
        run.wait()
    rows = list(read_rows(folder / "audit.jsonl"))
    num_positions = 4 * LAST_STEP
    assert find_missing_and_repeated(rows, num_positions=num_positions) == ([], [])
    workers = Counter(row["step"] for row in rows)
    assert sorted(workers) == list(range(1, LAST_STEP + 1))
    assert workers[28] == 1 and workers[29] == workers[LAST_STEP] == 2
    # Steps take consecutive runs of positions, as the plan says, for any number of workers.
    for row in rows:
        due = range(4 * (row["step"] - 1), 4 * row["step"])
        share = due if workers[row["step"]] == 1 else due[2 * row["rank"] : 2 * row["rank"] + 2]
        assert sorted([*row["trained"], *row["failed"]]) == list(share)
    # The broken video fails at each of its visits: once per epoch of eight, each filed once.
    failed = sorted(position for row in rows for position in row["failed"])
    quarantine = [row for row in read_rows(folder / "quarantine.jsonl") if row["stage"] == "train"]
    assert sorted(row["position"] for row in quarantine) == failed
    assert [position // 8 for position in failed] == list(range(num_positions // 8))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] and summary["clips_failed"] == len(failed)
    last = list(read_rows(folder / "metrics.jsonl"))[-1]
    assert last["data/clips_trained"] == num_positions - len(failed)
    assert last["data/store_mib_spilled"] == 0.0 and last["data/decode_seconds_per_clip"] > 0.0
