"""A Ray of our own can't be reached from outside, nor by another account of this machine.

What its processes listen on, and what it answers to who lacks its token.
"""

import http.client
import ipaddress
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

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
# What another account would run.
INTRUDER = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("inside:", ray.get(ray.remote(lambda: 7).remote()))
"""
INTRUDER_SECONDS = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Ray of our own, of a user whose home this is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(folder))
        connect_ray(address="local", num_cpus=1, remedy="")
        try:
            yield folder
        finally:
            stop_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ


def find_listeners() -> dict[str, set[tuple[str, int]]]:
    """Addresses that this process and those below it listen on, by process."""
    listeners: dict[str, set[tuple[str, int]]] = {}
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            title = (process.cmdline() or [process.name()])[0].strip()
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    listeners.setdefault(title, set()).add(connection.laddr)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return listeners


def wait_for_agent() -> dict[str, set[tuple[str, int]]]:
    """What listens once the agent does, which opens its ports some time after Ray is up."""
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    deadline = time.monotonic() + AGENT_SECONDS
    while AGENT not in (listeners := find_listeners()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert AGENT in listeners
    return listeners


def intrude(**environment: str) -> "subprocess.CompletedProcess[str]":
    """Join the Ray of this test from a process that knows its address only."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    address = ray.get_runtime_context().gcs_address
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    command = ["timeout", "--signal=KILL", str(INTRUDER_SECONDS), sys.executable, "-c", INTRUDER]
    return subprocess.run(
        [*command, address],
        env=kept | loopback | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_connect_ray_local_listens_on_loopback_only(home: Path) -> None:
    for title, addresses in wait_for_agent().items():
        for address, _ in addresses:
            assert ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback, title


def test_connect_ray_local_writes_no_token_into_the_home_folder(home: Path) -> None:
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    "known", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "guessed"}], ids=["none", "wrong"]
)
def test_connect_ray_local_lets_nobody_in_without_its_token(
    home: Path, known: dict[str, str]
) -> None:
    done = intrude(**known)
    assert done.returncode != 0 and "inside:" not in done.stdout
    assert "nauthenticated" in done.stderr or "oken" in done.stderr, done.stderr


def test_connect_ray_local_lets_in_who_has_its_token(home: Path) -> None:
    known = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    done = intrude(**known)
    assert "inside: 7" in done.stdout, done.stderr


def test_connect_ray_local_agent_answers_nobody_without_the_token(home: Path) -> None:
    answers = []
    for address, port in wait_for_agent()[AGENT]:
        url = f"http://{address.removeprefix('::ffff:')}:{port}/api/job_agent/jobs/"
        try:
            urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=10)
            answers.append(200)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
        except (OSError, http.client.HTTPException):
            continue  # one that speaks gRPC
    assert 401 in answers and 200 not in answers
