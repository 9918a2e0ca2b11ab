"""A Ray of our own can't be reached from outside: what its processes listen on."""

import ipaddress
import time

import psutil
import pytest
import ray

from lssl_ray.cluster.session import connect_ray, stop_ray

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(200),
    # Ray's own, of several kinds, in a process that pytest runs in.
    pytest.mark.filterwarnings("default"),
]

AGENT = "ray::DashboardAgent"
AGENT_SECONDS = 90


def find_listeners() -> dict[str, set[str]]:
    """Addresses that this process and those below it listen on, by process."""
    listeners: dict[str, set[str]] = {}
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            title = (process.cmdline() or [process.name()])[0].strip()
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    listeners.setdefault(title, set()).add(connection.laddr.ip)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return listeners


def test_connect_ray_local_listens_on_loopback_only() -> None:
    connect_ray(address="local", num_cpus=1, remedy="")
    try:
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
        deadline = time.monotonic() + AGENT_SECONDS
        # The agent opens its ports some time after Ray is up.
        while AGENT not in (listeners := find_listeners()) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        stop_ray()

    assert AGENT in listeners
    for title, addresses in listeners.items():
        for address in addresses:
            assert ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback, title
