"""A real HTTP server on loopback that speaks `/v1/chat/completions`, to behave and misbehave."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Response:
    """What the server says; status 0 drops the connection without a word."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


Respond = Callable[[Body, int], Response]


class ChatStub:
    """Keeps what it was sent; `respond(body, number)` decides, number counts from 0."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.bodies: list[Body] = []
        self.authorizations: list[str | None] = []
        self.max_in_flight = 0
        self.url = ""
        self._in_flight = 0
        self._lock = threading.Lock()

    def handle(self, body: Body, authorization: str | None) -> Response:
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.authorizations.append(authorization)
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            return self.respond(body, number)
        finally:
            with self._lock:
                self._in_flight -= 1

    def asked_labels(self) -> list[list[str]]:
        """Per request, the labels listed in its prompt."""
        return [list_labels(body) for body in self.bodies]


@contextmanager
def serve(respond: Respond) -> Iterator[ChatStub]:
    """Run a stub on a free port."""
    stub = ChatStub(respond)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            response = stub.handle(body, self.headers.get("Authorization"))
            if response.status == 0:
                self.close_connection = True
                return
            raw = response.body
            data = (raw if isinstance(raw, str) else json.dumps(raw)).encode()
            try:
                self.send_response(response.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client's time was up
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(content: Any, *, finish_reason: str = "stop") -> Response:
    """A chat completion; content that is no text is sent as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text}
    return Response(
        200,
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "stub",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        },
    )


def refuse(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Response:
    return Response(status, {"error": {"message": message}}, headers or {})


def read_prompt(body: Body) -> str:
    """The text of the first message by the user."""
    content = next(item for item in body["messages"] if item["role"] == "user")["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def list_labels(body: Body) -> list[str]:
    lines = read_prompt(body).rpartition("Actions:\n")[2].splitlines()
    return [line.removeprefix("- ") for line in lines]


def build_entry(label: str, *, num_static: int = 4, num_dynamic: int = 2) -> dict[str, Any]:
    """Phrases as they should be."""
    return {
        "label": label,
        "static": [f"the body of {label} in pose {number}" for number in range(num_static)],
        "dynamic": [f"two arms sweep past {number}" for number in range(num_dynamic)],
    }


def describe_all(body: Body, number: int = 0) -> Response:
    """A good answer to a request for descriptions."""
    return answer({"labels": [build_entry(label) for label in list_labels(body)]})


def name_or_describe(body: Body, number: int = 0) -> Response:
    """Describes what it is asked to; else names as many actions as are asked for."""
    prompt = read_prompt(body)
    if "Actions:\n" in prompt:
        return describe_all(body)
    wanted = re.match(r"Name (\d+) different", prompt)
    return answer(
        {"labels": [f"action {number} of {index}" for index in range(int(wanted[1]))]}
        if wanted
        else {"labels": ["Moving Left"]}
    )
