"""Storage that not every node sees is refused before a training, on nodes with disks of their own.

The machine of the node `far` is played by a mount namespace, in which one folder is another one.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
import tiny
import yaml
from several_nodes import Node, SeveralNodes, several_nodes

from lssl_ray.cluster.shared_paths import MARKER_PREFIX, find_unshared_paths
from lssl_ray.tracking.journal import read_rows

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(800),
    # Ray's own, of several kinds, in a process that pytest runs in.
    pytest.mark.filterwarnings("default"),
]

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
ASK_SECONDS = 120.0
WAIT_SECONDS = 600


@dataclass(frozen=True)
class Workplace:
    """A cluster, and folders: the node `far` sees one empty, and may only read another."""

    cluster: SeveralNodes
    here_only: Path
    read_only: Path
    shared: Path


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Iterator[Workplace]:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody make a mount namespace")
    folder = tmp_path_factory.mktemp("paths")
    here_only, read_only, shared = (folder / name for name in ("here only", "read only", "shared"))
    for place in (here_only, read_only, shared):
        place.mkdir()
    for place in (here_only, shared):
        values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=place / "runs")
        (place / "recipe.yaml").write_text(yaml.safe_dump(values))
    mounts = (
        f"mount -t tmpfs tmpfs '{here_only}' && mount --bind '{read_only}' '{read_only}' && "
        f"mount -o remount,bind,ro '{read_only}'"
    )
    hide = ("sh", "-c", f'{mounts} && exec "$@"', "sh")
    nodes = {
        "near": Node(num_cpus=2, labels={"pool": "near"}),
        "far": Node(num_cpus=2, labels={"pool": "far"}, wrapper=(*NAMESPACE, *hide)),
    }
    with pytest.MonkeyPatch.context() as patch, several_nodes(nodes) as cluster:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # as the cluster's
        patch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            yield Workplace(cluster, here_only, read_only, shared)
        finally:
            ray.shutdown()


def test_find_unshared_paths_names_the_node_that_sees_another_folder(workplace: Workplace) -> None:
    paths = {
        "run.folder": workplace.here_only,
        "data": workplace.shared,
        "out": workplace.read_only,
    }
    found = find_unshared_paths(paths, labels={}, deadline_seconds=ASK_SECONDS)
    assert [(one.setting, one.path, one.problem) for one in found] == [
        ("run.folder", workplace.here_only, "is another folder"),
        ("out", workplace.read_only, "can't be written"),
    ]
    assert {one.node_id for one in found} == {workplace.cluster.node_id("far")}


def test_find_unshared_paths_leaves_nothing_behind(workplace: Workplace) -> None:
    assert not list(workplace.here_only.glob(f"{MARKER_PREFIX}*"))
    assert not list(workplace.shared.glob(f"{MARKER_PREFIX}*"))


def test_find_unshared_paths_asks_only_nodes_with_the_labels(workplace: Workplace) -> None:
    recipe = workplace.here_only / "recipe.yaml"
    paths = {"folder": workplace.here_only, "file": recipe, "none": recipe / "none"}
    near = find_unshared_paths(paths, labels={"pool": "near"}, deadline_seconds=ASK_SECONDS)
    far = find_unshared_paths(paths, labels={"pool": "far"}, deadline_seconds=ASK_SECONDS)
    assert [one.setting for one in near] == ["none"]
    assert [one.setting for one in far] == ["folder", "file", "none"]


def test_train_is_refused_before_it_begins_where_a_node_lacks_the_run_folder(
    workplace: Workplace,
) -> None:
    recipe = workplace.here_only / "recipe.yaml"
    done = train(workplace, recipe, "--set", "cluster.train_labels={pool: far}")
    assert done.returncode == 2, done.stdout
    assert "run.folder" in done.stdout and str(workplace.here_only) in done.stdout
    assert workplace.cluster.node_id("far")[:12] in done.stdout
    run = workplace.here_only / "runs" / "run"
    assert not (run / "checkpoints").exists()
    assert not [row for row in read_rows(run / "metrics.jsonl") if "loss/total" in row]


def test_train_takes_a_node_that_lacks_only_what_it_is_not_asked_for(workplace: Workplace) -> None:
    recipe = workplace.here_only / "recipe.yaml"
    labels = ("cluster.train_labels={pool: near}", "cluster.decode_labels={pool: far}")
    done = train(workplace, recipe, *(part for text in labels for part in ("--set", text)))
    assert done.returncode == 0, done.stdout
    assert (workplace.here_only / "runs" / "run" / "summary.json").exists()


def train(
    workplace: Workplace, recipe: Path, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """`lssl-ray train` as a user of the cluster starts it."""
    command = [sys.executable, "-m", "lssl_ray.cli", "train", "--config", str(recipe)]
    return subprocess.run(
        [*command, "--set", "cluster.address=auto", *arguments],
        env=workplace.cluster.env,
        cwd=recipe.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
