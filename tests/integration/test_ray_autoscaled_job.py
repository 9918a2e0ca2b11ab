"""A training job on a cluster of no machines: it grows for the job, and shrinks to none again."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import yaml
from autoscaled_ray import Pool, autoscaled_ray, find_free_port
from job_cluster import (
    ENDED,
    JobClient,
    build_environment,
    check_readable,
    copy_repository,
    write_token,
)
from several_nodes import BASE_ENVIRONMENT

from lssl_ray.tracking.journal import read_rows

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

START_SECONDS, SHRINK_SECONDS = 180, 300
# Longer than a job leaves a node alone between asking for it and using it.
IDLE_MINUTES = 1.5
POOLS = {"train", "decode"}


@dataclass(frozen=True)
class Observed:
    """What was seen of a cluster and of the job on it.

    Attributes:
        before: Pools that had nodes before the job.
        during: Pools that had nodes at any time of it.
        after: Pools that still had nodes some time after it.
        status: How the job ended.
        said: By the job.
    """

    before: set[str]
    during: set[str]
    after: set[str]
    status: str
    said: str


def list_pools(client: JobClient) -> set[str]:
    """Pools with living nodes, as the dashboard shows them."""
    nodes = client.get("/api/v0/nodes?limit=1000")["data"]["result"]["result"]
    alive = (node for node in nodes if node["state"] == "ALIVE" and not node["is_head_node"])
    return {node["labels"]["pool"] for node in alive}


def wait_for_dashboard(client: JobClient) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            assert client.find_status("/api/v0/nodes", token=client.secret) == 200
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


@pytest.fixture(scope="module")
def recipe(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Path:
    shared = tmp_path_factory.mktemp("shared")
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=shared / "runs")
    values["cluster"] = {
        "address": "auto",
        "train_labels": {"pool": "train"},
        "decode_labels": {"pool": "decode"},
        "decode_memory_mib": 1024,
    }
    (shared / "recipe.yaml").write_text(yaml.safe_dump(values))
    return shared / "recipe.yaml"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Iterator[Observed]:
    token = write_token(tmp_path_factory.mktemp("token"))
    # As in cluster.yaml: machines take their time.
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900"}
    environment = BASE_ENVIRONMENT | build_environment(token) | patience
    port = find_free_port()
    with autoscaled_ray(
        [Pool(name) for name in sorted(POOLS)],
        idle_minutes=IDLE_MINUTES,
        dashboard_port=port,
        environment=environment,
    ):
        client = JobClient(
            f"http://127.0.0.1:{port}",
            token=token,
            repository=copy_repository(tmp_path_factory.mktemp("repository")),
            env=os.environ | environment,
        )
        wait_for_dashboard(client)
        before, during = list_pools(client), set()
        client.submit("train", "jobs/train.py", "--config", str(recipe))
        while (status := str(client.describe("train")["status"])) not in ENDED:
            during |= list_pools(client)
            time.sleep(0.5)
        deadline = time.monotonic() + SHRINK_SECONDS
        while (after := list_pools(client)) and time.monotonic() < deadline:
            time.sleep(1.0)
        yield Observed(before, during, after, status, client.read_logs("train"))


def test_training_job_from_zero_nodes_gets_both_kinds_and_finishes(
    observed: Observed, recipe: Path
) -> None:
    assert observed.status == "SUCCEEDED", observed.said
    assert (observed.before, observed.during) == (set(), POOLS)
    run = recipe.parent / "runs" / "run"
    assert (run / "summary.json").exists()
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == [1, 2, 3, 4]


def test_lost_machines_are_no_part_of_what_the_job_says(observed: Observed) -> None:
    check_readable(observed.said)


def test_cluster_shrinks_to_zero_nodes_after_the_job(observed: Observed) -> None:
    assert observed.during == POOLS
    assert observed.after == set()
