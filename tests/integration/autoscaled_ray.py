"""A head on loopback whose autoscaler is Ray's real one and whose machines are raylets here.

Node types start from none and have at most one node: `decode` with the label `pool: decode`, or
others that are asked for.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

HEAD_ID = f"{'f' * 51}00000"
# Ray's fake provider takes the head to be of this type, and this id.
HEAD_TYPE = "ray.head.default"
STORE_BYTES = 80 * 2**20
START_SECONDS, STOP_SECONDS = 120, 60


@dataclass(frozen=True)
class Pool:
    """Nodes that the autoscaler may start: one of each, with the label `pool: NAME`."""

    name: str
    num_cpus: int = 1


@contextmanager
def autoscaled_ray(
    pools: Sequence[Pool] = (Pool("decode"),),
    *,
    idle_minutes: float | None = None,
    dashboard_port: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Start it, join it unless it has a dashboard for that, and end every process of it.

    Args:
        pools: What may be started.
        idle_minutes: After which a node goes; None for Ray's default.
        dashboard_port: None for none.
        environment: More variables for all of its processes.

    Yields:
        Its address.
    """
    # Short: sockets lie in it, and their paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="lr-"))
    port = find_free_port()
    log = folder / "head.log"
    config = folder / "autoscaling.yaml"
    described = _describe_cluster(port, pools)
    if idle_minutes is not None:
        described["idle_timeout_minutes"] = idle_minutes
    config.write_text(yaml.safe_dump(described))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options: dict[str, Any] = {
        "num-cpus": 0,
        "port": port,
        "node-ip-address": "127.0.0.1",
        "temp-dir": folder,
        "include-dashboard": "false",
        "object-store-memory": STORE_BYTES,
        "autoscaling-config": config,
    }
    if dashboard_port is not None:
        # Ray's defaults are the same for all heads of a machine.
        options |= {
            "include-dashboard": "true",
            "dashboard-port": dashboard_port,
            "dashboard-agent-listen-port": 0,
            "ray-client-server-port": find_free_port(),
        }
    head_only = {
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_NODE_TYPE_NAME": HEAD_TYPE,
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # Default 30: the head would wait for its fellows at the end.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    with log.open("w") as out:
        head = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **head_only, **(environment or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if dashboard_port is None:
            _join(f"127.0.0.1:{port}", head, log)
        yield f"127.0.0.1:{port}"
    finally:
        ray.shutdown()
        _end(head, folder)
        shutil.rmtree(folder)


def find_free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _describe_cluster(port: int, pools: Sequence[Pool]) -> dict[str, object]:
    steps = "initialization setup head_setup worker_setup head_start_ray worker_start_ray"
    return {
        "cluster_name": "lssl-test",
        "max_workers": len(pools),
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": f"127.0.0.1:{port}",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{
                pool.name: {
                    "resources": {"CPU": pool.num_cpus, "object_store_memory": STORE_BYTES},
                    "labels": {"pool": pool.name},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": 1,
                }
                for pool in pools
            },
        },
        "head_node_type": HEAD_TYPE,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{step}_commands": [] for step in steps.split()},
    }


def _join(address: str, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        except (ConnectionError, RuntimeError, ValueError) as error:
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{error}: {log.read_text()}"
            time.sleep(0.5)


def _end(head: "subprocess.Popen[bytes]", folder: Path) -> None:
    """The head ends its own; fake machines are others', known by the folder in their command."""
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        head.kill()
    left = [process for process in psutil.process_iter() if str(folder) in _command_of(process)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
