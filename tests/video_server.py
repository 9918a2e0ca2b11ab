"""A web server on loopback that serves a folder, and misbehaves where it is told to.

/stall/NAME sends half of NAME and then waits until `released`; /cut/NAME sends half and hangs up;
/forbidden/NAME is refused. `trouble` says the same of a file under its own address, or that it is
`absent`. Everything else is Python's own file server, index pages included.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Trouble = Literal["stall", "cut", "forbidden", "absent"]
PREFIXES: tuple[Trouble, ...] = ("stall", "cut", "forbidden")


class VideoServer:
    """Where a served folder is, and what was asked of it.

    Attributes:
        url: Without a slash at its end.
        fetched: Paths that were asked for, in order.
        released: Set, it ends all stalling.
        trouble: By name of the file; may be changed while the server is at work.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.fetched: list[str] = []
        self.released = threading.Event()
        self.trouble: dict[str, Trouble] = {}


@contextmanager
def serve_folder(folder: Path) -> Iterator[VideoServer]:
    """Serves a folder on a free port until the block ends."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def do_HEAD(self) -> None:
            if self._find_trouble() == "absent":
                self.send_error(404)
            else:
                super().do_HEAD()

        def do_GET(self) -> None:
            state.fetched.append(self.path)
            trouble = self._find_trouble()
            if trouble in ("forbidden", "absent"):
                self.send_error(403 if trouble == "forbidden" else 404)
            elif trouble is not None:
                self._send_half()
                if trouble == "stall":
                    state.released.wait(60)
            else:
                super().do_GET()

        def _find_trouble(self) -> Trouble | None:
            """What is wrong with the file; takes it off the path."""
            first, _, rest = self.path.lstrip("/").partition("/")
            trouble = next((name for name in PREFIXES if name == first), None)
            if trouble is not None:
                self.path = f"/{rest}"
            trouble = trouble or state.trouble.get(Path(self.translate_path(self.path)).name)
            return None if trouble == "stall" and state.released.is_set() else trouble

        def _send_half(self) -> None:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """A client that was killed while it read is no error."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state = VideoServer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()
