"""From a cloud's notice to a node that drains: the watcher, its token and a real Ray, in one go."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from job_cluster import write_token
from several_nodes import HEAD, Node, several_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ACTION = "/latest/meta-data/spot/instance-action"
NOTICE_SECONDS = 120
# The middle is what `python -m lssl_ray.cluster.preemption watch --cloud aws` does.
WATCH = """
import json, sys, threading
import ray
from lssl_ray.cluster.preemption import drain_this_node
from lssl_ray.preemption import AwsNotices, watch_notices

def join():
    ray.init("auto", namespace="work", log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Work:
    def begin(self):
        return None

join()  # a node without work would be gone at once
work = Work.options(name="work", lifetime="detached").remote()
ray.get(work.begin.remote())
ray.shutdown()
watch_notices(AwsNotices(sys.argv[1]), drain_this_node, poll_seconds=0.1, stop=threading.Event())
join()
print(json.dumps(ray._private.state.state.get_draining_nodes()))
"""


class MetadataServer(ThreadingHTTPServer):
    """What AWS tells a spot machine; no notice at the first question."""

    def __init__(self, deadline: float) -> None:
        super().__init__(("127.0.0.1", 0), MetadataHandler)
        when = datetime.fromtimestamp(deadline, timezone.utc)
        self.notice = json.dumps({"action": "terminate", "time": f"{when:%Y-%m-%dT%H:%M:%SZ}"})
        self.num_asked = 0


class MetadataHandler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        self._answer(200, "session")

    def do_GET(self) -> None:
        self.server.num_asked += 1
        if self.path != ACTION or self.server.num_asked == 1:
            self._answer(404, "")
        else:
            self._answer(200, self.server.notice)

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    server = MetadataServer(time.time() + NOTICE_SECONDS)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_notice_of_a_cloud_drains_the_node_of_the_watcher(
    server: MetadataServer, tmp_path: Path
) -> None:
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(write_token(tmp_path)),
        "HOME": str(tmp_path),
    }
    with several_nodes({}, environment=environment, head=Node(num_cpus=1)) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", WATCH, f"http://127.0.0.1:{server.server_address[1]}"],
            env=cluster.env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        draining = json.loads(done.stdout.splitlines()[-1])
        node = cluster.node_id(HEAD)
    assert list(draining) == [node]
    deadline = datetime.strptime(json.loads(server.notice)["time"], "%Y-%m-%dT%H:%M:%SZ")
    assert draining[node] == deadline.replace(tzinfo=timezone.utc).timestamp() * 1000
    assert server.num_asked >= 2
