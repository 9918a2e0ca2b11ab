"""Room for trials where Ray's real autoscaler starts the nodes: from zero, and one trial more."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import tiny
from autoscaled_ray import Pool, autoscaled_ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from lssl_ray.cluster.room import TrialRoom
from lssl_ray.errors import ClusterError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    # Ray's own, of several kinds, in a process that pytest runs in.
    pytest.mark.filterwarnings("default"),
]

START_SECONDS = 180
CORES = 3  # of a trial: worker, decoder, evaluation


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two kinds of nodes, one of each, that hold a trial."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # nobody's token is touched
        # Ray takes 127.0.0.1 for the machine's own address otherwise.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)
        with autoscaled_ray([Pool("first", CORES), Pool("second", CORES)]):
            yield


@pytest.fixture
def open_room(
    tiny_clip_dir: Path, videos: tiny.VideoSet, tmp_path: Path
) -> Callable[..., TrialRoom]:
    def open_room(*overrides: str, wanted: int | None = None) -> TrialRoom:
        values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
        config = tiny.build_run_config(values, ["cluster.decode_memory_mib=1024", *overrides])
        return TrialRoom(config, wanted=wanted, can_grow=True, settle_seconds=0.0)

    return open_room


def count_nodes() -> int:
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())


def count_waiting() -> int:
    return sum(one["state"] == "PENDING" for one in placement_group_table().values())


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("cluster.cpus_per_worker=4", "4 cores"),
        ("cluster.train_labels={pool: typo}", "typo"),
        ("cluster.num_decoders=6", "8 cores in all"),
    ],
)
def test_trial_that_no_node_types_hold_is_refused_long_before_the_start_time(
    cluster: None, open_room: Callable[..., TrialRoom], setting: str, word: str
) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=word):
        open_room(setting).require(start_seconds=START_SECONDS)
    assert time.monotonic() - began < START_SECONDS / 2
    assert (count_waiting(), count_nodes()) == (0, 0)


def test_sweep_on_zero_nodes_waits_for_those_of_one_trial(
    cluster: None, open_room: Callable[..., TrialRoom]
) -> None:
    room = open_room()
    room.require(start_seconds=START_SECONDS)
    assert (room.count(), count_nodes(), count_waiting()) == (1, 1, 0)


def test_number_at_once_grows_by_what_the_autoscaler_starts_and_no_further(
    cluster: None, open_room: Callable[..., TrialRoom]
) -> None:
    trial = placement_group([{"CPU": 1.0}] * CORES)  # what the first one took
    assert trial.wait(START_SECONDS)
    modest, room = open_room(wanted=1), open_room(wanted=4)
    modest.ask(5)
    assert count_waiting() == 0, "more than is wanted must not cost a node"
    deadline = time.monotonic() + START_SECONDS
    while room.count() < 2 and time.monotonic() < deadline:
        room.ask(5)
        time.sleep(0.2)
    assert (room.count(), count_nodes()) == (2, 2)
    room.ask(0)  # no trial is left
    assert count_waiting() == 0
    remove_placement_group(trial)
