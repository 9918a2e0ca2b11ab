"""A Ray of several nodes on loopback: a head without cores and raylets, killed as machines are.

    with several_nodes({"train": Node(num_cpus=2, labels={"pool": "train"})}) as cluster:
        subprocess.run(command, env=cluster.env)
        cluster.kill_node("train")

Every node is an operating system process of its own with all of Ray's processes below it, as
`ray start --block` makes one; that command itself starts no worker node on 127.0.0.1. This file is
what such a process runs. No node drains or says goodbye: to be told before is another test's.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HEAD = "head"
STORE_BYTES = 80 * 2**20
START_SECONDS, STOP_SECONDS = 180, 60
# Without the first one Ray turns 127.0.0.1 into the machine's own address.
BASE_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Node:
    """What a node has.

    Attributes:
        num_cpus: Logical cores.
        num_gpus: Logical GPUs; there need be none.
        labels: Ray node labels.
        environment: More variables for its processes, workers too.
        wrapper: A command that starts the node's command, such as `("unshare", "--user", ...)`.
    """

    num_cpus: int = 1
    num_gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()


@dataclass(frozen=True)
class StartedNode:
    """A node's process, and what it said of itself."""

    process: "subprocess.Popen[bytes]"
    ready_file: Path
    log: Path

    def wait_until_ready(self) -> dict[str, Any]:
        """Its address, id and dashboard, when Ray knows it."""
        deadline = time.monotonic() + START_SECONDS
        while not self.ready_file.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return dict(json.loads(self.ready_file.read_text()))


class SeveralNodes:
    """The cluster, while its context lasts.

    Attributes:
        address: For RAY_ADDRESS.
        env: The environment of a driver.
        dashboard_url: None without one.
    """

    address: str
    dashboard_url: str | None = None

    def __init__(self, folder: Path, *, environment: Mapping[str, str]) -> None:
        self._folder = folder
        kept = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        self.env = kept | BASE_ENVIRONMENT | dict(environment)
        self._nodes: dict[str, StartedNode] = {}

    def start_head(self, head: Node, *, dashboard: bool) -> None:
        """Start the cluster's services, and a node beside them."""
        port = {"dashboard_port": _find_free_port()} if dashboard else {}
        self._launch(HEAD, head, {"include_dashboard": dashboard, **port})
        told = self._nodes[HEAD].wait_until_ready()
        self.address = told["address"]
        self.dashboard_url = f"http://{told['dashboard']}" if dashboard else None
        self.env["RAY_ADDRESS"] = self.address
        # As `ray start` does: a submitted job would join any other Ray of this machine.
        (self._folder / "ray_current_cluster").write_text(self.address)

    def start_node(self, name: str, node: Node) -> None:
        """Add a node, and wait until Ray knows it."""
        self.start_nodes({name: node})

    def start_nodes(self, nodes: Mapping[str, Node]) -> None:
        """Add nodes at the same time."""
        for name, node in nodes.items():
            self._launch(name, node, {"gcs_address": self.address, "include_log_monitor": False})
        for name in nodes:
            self._nodes[name].wait_until_ready()

    def node_id(self, name: str) -> str:
        """Ray's, hexadecimal."""
        return str(self._nodes[name].wait_until_ready()["node_id"])

    def list_processes(self, name: str) -> list[psutil.Process]:
        """The node's processes: Ray's own, its workers, and what those started."""
        return list(_list_below(self._nodes[name].process.pid))

    def kill_node(self, name: str) -> None:
        """End a node as a pulled plug does: SIGKILL for all of it at one moment."""
        node = self._nodes.pop(name)
        _kill_tree(node.process.pid)
        node.process.wait()
        for ending in (".json", ".store", ".raylet"):  # another node may get this name
            (self._folder / f"{name}{ending}").unlink(missing_ok=True)

    def close(self) -> None:
        """End whatever runs; the head last, so that nothing tries to join another."""
        for name in reversed(list(self._nodes)):
            self.kill_node(name)

    def _launch(self, name: str, node: Node, parameters: dict[str, Any]) -> None:
        assert name not in self._nodes, f"there is a node called {name}"
        ready_file = self._folder / f"{name}.json"
        is_head = name == HEAD
        request = {
            "head": is_head,
            "ready_file": str(ready_file),
            "parameters": {
                "node_name": name,
                "node_ip_address": "127.0.0.1",
                "num_cpus": node.num_cpus,
                "num_gpus": node.num_gpus,
                "labels": dict(node.labels),
                "object_store_memory": STORE_BYTES,
                "temp_dir": str(self._folder) if is_head else None,
                # Else nodes that start at the same time take the same names.
                "plasma_store_socket_name": str(self._folder / f"{name}.store"),
                "raylet_socket_name": str(self._folder / f"{name}.raylet"),
                # Zero: any free port. Ray's defaults are the same on every node.
                "min_worker_port": 0,
                "max_worker_port": 0,
                "dashboard_agent_listen_port": 0,
                **parameters,
            },
        }
        log = self._folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*node.wrapper, sys.executable, __file__, json.dumps(request)],
                env={**self.env, **node.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._nodes[name] = StartedNode(process, ready_file, log)


@contextmanager
def several_nodes(
    nodes: Mapping[str, Node],
    *,
    dashboard: bool = False,
    environment: Mapping[str, str] | None = None,
    head: Node | None = None,
) -> Iterator[SeveralNodes]:
    """Start a head called `head` and these nodes; end every process of them.

    Args:
        nodes: Name to what it has.
        dashboard: Start Ray's, with its job server.
        environment: More variables for every node and driver.
        head: Instead of a head without cores.
    """
    # Short: sockets lie in it, and their paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="lr-"))
    cluster = SeveralNodes(folder, environment=environment or {})
    try:
        cluster.start_head(head or Node(num_cpus=0), dashboard=dashboard)
        cluster.start_nodes(nodes)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _list_below(pid: int) -> set[psutil.Process]:
    """A process, all below it, and those of its session whose parent is gone."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        found |= {root, *root.children(recursive=True)}
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == pid:
                found.add(process)
    return found


def _kill_tree(pid: int) -> None:
    """Stop all first: what runs on would start another process, or tell somebody."""
    stopped: set[psutil.Process] = set()
    while fresh := _list_below(pid) - stopped:
        for process in fresh:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        stopped |= fresh
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(stopped), timeout=STOP_SECONDS)


def _run_node(request: dict[str, Any]) -> None:
    """Be a node until one of its processes ends: what `ray start --block` does."""
    import ray._private.node
    import ray._private.parameter
    from ray._private import services

    get_node = services.get_node

    def get_node_patiently(*arguments: Any) -> Any:
        """Ray gives a raylet 30 s to be known; a machine full of tests needs more."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    services.get_node = get_node_patiently
    parameters = ray._private.parameter.RayParams(**request["parameters"])
    node = ray._private.node.Node(
        parameters, head=request["head"], shutdown_at_exit=True, spawn_reaper=True
    )
    told = {"address": node.gcs_address, "node_id": node.node_id, "dashboard": node.webui_url}
    ready_file = Path(request["ready_file"])
    partial = ready_file.with_suffix(".partial")
    partial.write_text(json.dumps(told))
    os.replace(partial, ready_file)
    while not any(process.returncode for _, process in node.dead_processes()):
        time.sleep(0.5)
    sys.exit("A process of this node ended.")


if __name__ == "__main__":
    _run_node(json.loads(sys.argv[1]))
