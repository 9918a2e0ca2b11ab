"""Whether a job server asks for a token: told by asking it without one, on loopback."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lssl_ray.cluster.access import ask_without_token


@contextmanager
def serving(status: int) -> Iterator[str]:
    """A server that answers everything with one status; its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asks = "Authorization" not in self.headers and self.path == "/api/jobs/"
            self.send_response(status if asks else 500)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "asked"), [(200, False), (401, True), (403, True), (500, None), (404, None)]
)
def test_job_server_s_answer_tells_whether_it_asks(status: int, asked: bool | None) -> None:
    with serving(status) as address:
        assert ask_without_token(address) is asked


def test_job_server_that_is_away_tells_nothing() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    assert ask_without_token(address) is None
