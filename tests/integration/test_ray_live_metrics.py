"""What Prometheus reads of a run: asked over HTTP from a real Ray, which nothing else reaches."""

import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from video_records import build_record

from lssl_ray.cluster.desk import open_desk
from lssl_ray.cluster.live_metrics import FROM_ROWS, LIVE_METRICS
from lssl_ray.cluster.session import connect_ray, stop_ray
from lssl_ray.video.manifest import build_manifest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(300),
    # Ray's own, of several kinds, in a process that pytest runs in.
    pytest.mark.filterwarnings("default"),
]

EXPORT_SECONDS = 120  # Ray exports every ten
FORGET_SECONDS = 45  # more than twice twenty
ROW = {
    "step": 30,
    "num_steps": 50,
    **{metric.key: 1.5 for metric in FROM_ROWS if metric.key not in ("step", "num_steps")},
}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    connect_ray(address="local", num_cpus=2, remedy="a test")
    yield
    stop_ray()


def scrape() -> dict[str, dict[str, float]]:
    """Metric name without `ray_` to run to value, as Ray's endpoint says now."""
    (node,) = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=30) as reply:
        text = reply.read().decode()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_lssl_"):
                name = sample.name.removeprefix("ray_")
                found.setdefault(name, {})[sample.labels["run"]] = sample.value
    return found


def wait_for(
    condition: Callable[[dict[str, dict[str, float]]], bool],
) -> dict[str, dict[str, float]]:
    deadline = time.monotonic() + EXPORT_SECONDS
    while not condition(found := scrape()):
        assert time.monotonic() < deadline, found
        time.sleep(1.0)
    return found


def test_desk_exports_every_figure_of_its_run_under_its_name(
    local_ray: None, tmp_path: Path
) -> None:
    folder = tmp_path / "my-run"
    folder.mkdir()
    desk = open_desk(folder, build_manifest([build_record()], root="/videos"), decode_labels={})
    began = time.time()
    for call in (
        desk.begin_session.remote(0),
        desk.append.remote("metrics", {**ROW, "step": 20}),
        desk.append.remote("metrics", ROW),
        desk.append.remote("metrics", {"step": 30, "validation/test/zero_shot": 0.5}),
        desk.note_checkpoint.remote(),
        desk.append.remote("events", {"event": "stall", "message": "one"}),
        desk.begin_session.remote(30),
    ):
        ray.get(call)
    found = wait_for(
        lambda found: len(found) == len(LIVE_METRICS) and found["lssl_worker_starts"]["my-run"] == 2
    )
    values = {name: runs["my-run"] for name, runs in found.items()}
    assert (values["lssl_step"], values["lssl_planned_steps"]) == (30, 50)
    assert values["lssl_data_wait_ratio"] == 1.5 and values["lssl_loss"] == 1.5
    assert values["lssl_object_store_spilled_bytes"] == 1.5 * 2**20
    assert values["lssl_stalls"] == 1
    for name in ("lssl_last_row_timestamp_seconds", "lssl_last_checkpoint_timestamp_seconds"):
        assert began - 1 < values[name] < time.time() + 1
    # Ray forgets a gauge that nobody sets; a run that stands still must not vanish.
    for _ in range(FORGET_SECONDS):
        time.sleep(1.0)
        assert scrape().keys() == found.keys()
    ray.kill(desk)
    wait_for(lambda found: not found)  # a run that is over leaves no figures that look alive
