"""Notices of preemption: both clouds' metadata servers, played on loopback; then the waiting."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lssl_ray.errors import ClusterError
from lssl_ray.preemption import (
    GOOGLE_MAINTENANCE_SECONDS,
    GOOGLE_PREEMPTION_SECONDS,
    AwsNotices,
    GoogleNotices,
    Notice,
    watch_notices,
)

ACTION = "/latest/meta-data/spot/instance-action"
INSTANCE = "/computeMetadata/v1/instance"
NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=timezone.utc).timestamp()


class MetadataServer(ThreadingHTTPServer):
    """Both clouds' rules: AWS wants a session's token, Google its flavour."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MetadataHandler)
        self.pages: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.num_sessions = 0
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class MetadataHandler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        seconds = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        if self.path != "/latest/api/token" or not 1 <= int(seconds or 0) <= 21_600:
            return self._answer(400, "")
        self.server.num_sessions += 1
        token = f"session-{self.server.num_sessions}"
        self.server.tokens.add(token)
        return self._answer(200, token)

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path.startswith("/latest/"):
            if self.headers["X-aws-ec2-metadata-token"] not in self.server.tokens:
                return self._answer(401, "")
        elif self.headers["Metadata-Flavor"] != "Google":
            return self._answer(403, "")
        if self.path not in self.server.pages:
            return self._answer(404, "")
        return self._answer(200, self.server.pages[self.path])

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    # A proxy that nobody answers at: a question that went through it would fail.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    server = MetadataServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_aws_without_a_notice_says_none_in_one_session(server: MetadataServer) -> None:
    source = AwsNotices(server.url)
    assert [source.read() for _ in range(3)] == [None] * 3
    assert server.num_sessions == 1


def test_aws_notice_is_read_with_its_time_in_utc(server: MetadataServer) -> None:
    server.pages[ACTION] = '{"action": "terminate", "time": "2026-11-21T12:00:00Z"}'
    notice = AwsNotices(server.url).read()
    assert notice is not None
    assert notice.deadline == NOON
    assert "terminate" in notice.reason


def test_aws_session_that_ended_is_opened_anew(server: MetadataServer) -> None:
    source = AwsNotices(server.url)
    assert source.read() is None
    server.tokens.clear()
    server.pages[ACTION] = '{"action": "stop", "time": "2026-11-21T12:00:00Z"}'
    notice = source.read()
    assert notice is not None and notice.deadline == NOON
    assert server.num_sessions == 2


@pytest.mark.parametrize("text", ["<html>", '{"action": "stop"}', '{"action": 1, "time": 5}', "[]"])
def test_aws_answer_of_another_form_is_an_error_not_silence(
    server: MetadataServer, text: str
) -> None:
    server.pages[ACTION] = text
    with pytest.raises(OSError, match="instance-action"):
        AwsNotices(server.url).read()


@pytest.mark.parametrize(
    ("preempted", "event", "seconds"),
    [
        ("FALSE", "NONE", None),
        ("FALSE", "MIGRATE_ON_HOST_MAINTENANCE", None),
        ("TRUE", "NONE", GOOGLE_PREEMPTION_SECONDS),
        ("TRUE", "TERMINATE_ON_HOST_MAINTENANCE", GOOGLE_PREEMPTION_SECONDS),
        ("FALSE", "TERMINATE_ON_HOST_MAINTENANCE", GOOGLE_MAINTENANCE_SECONDS),
    ],
)
def test_google_states_are_told_apart(
    server: MetadataServer, preempted: str, event: str, seconds: float | None
) -> None:
    server.pages[f"{INSTANCE}/preempted"] = preempted
    server.pages[f"{INSTANCE}/maintenance-event"] = event
    notice = GoogleNotices(server.url, clock=lambda: NOON).read()
    assert (None if notice is None else notice.deadline - NOON) == seconds


def test_watch_on_another_cloud_is_refused_at_the_first_question(server: MetadataServer) -> None:
    with pytest.raises(ClusterError, match="--cloud"):
        watch_notices(
            GoogleNotices(server.url), pytest.fail, poll_seconds=60, stop=threading.Event()
        )


def test_watch_acts_once_on_a_notice_that_comes_later(server: MetadataServer) -> None:
    acted: list[Notice] = []
    text = '{"action": "terminate", "time": "2026-11-21T12:00:00Z"}'
    arrives = threading.Timer(0.2, server.pages.__setitem__, (ACTION, text))
    arrives.start()
    notice = watch_notices(
        AwsNotices(server.url), acted.append, poll_seconds=0.05, stop=threading.Event()
    )
    assert acted == [notice]
    assert notice is not None and notice.deadline == NOON
    # About four turns; a loop that does not wait would make hundreds.
    assert 2 <= len(server.requests) <= 20


@pytest.mark.parametrize(
    "answer",
    [
        b"no http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nFA",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff",
    ],
    ids=["other protocol", "cut", "no text"],
)
def test_answer_that_is_no_text_of_http_is_an_error_that_the_watch_survives(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(OSError, match="read"):
            GoogleNotices(f"http://127.0.0.1:{listener.getsockname()[1]}").read()
        thread.join()


class Scripted:
    """A source that gives what it is told, one thing per question."""

    def __init__(self, *answers: Notice | OSError | None) -> None:
        self._answers = iter(answers)

    def read(self) -> Notice | None:
        answer = next(self._answers)
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_watch_goes_on_through_a_server_that_fails_for_a_while() -> None:
    notice = Notice("late", time.time() + 60)
    failing = [OSError("away")] * 5
    acted: list[Notice] = []
    source = Scripted(None, *failing, None, notice)
    found = watch_notices(source, acted.append, poll_seconds=0.001, stop=threading.Event())
    assert found == notice and acted == [notice]


def test_watch_tries_again_while_there_is_time() -> None:
    notice = Notice("soon", time.time() + 60)
    turns = iter([ClusterError("no Ray yet"), ClusterError("no Ray yet"), None])

    def act(_: Notice) -> None:
        if error := next(turns):
            raise error

    assert watch_notices(Scripted(notice), act, poll_seconds=0.001, stop=threading.Event())
    assert list(turns) == []


def test_watch_fails_when_the_deadline_comes_first() -> None:
    def refuse(_: Notice) -> None:
        raise ClusterError("refused")

    with pytest.raises(ClusterError, match="refused"):
        watch_notices(
            Scripted(Notice("now", time.time())), refuse, poll_seconds=0.01, stop=threading.Event()
        )


def test_watch_ends_when_told_to() -> None:
    stop = threading.Event()
    stop.set()
    assert watch_notices(Scripted(None), pytest.fail, poll_seconds=60, stop=stop) is None


def test_drain_without_the_clusters_token_says_so_and_what_to_do(tmp_path: Path) -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    # A home without a token; nobody listens there, and nobody is asked.
    lacking = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_ADDRESS": "127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "lssl_ray.cluster.preemption", "drain", "--seconds", "60"],
        env=kept | lacking,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "RAY_AUTH_MODE" in done.stderr
