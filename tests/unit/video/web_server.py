"""A web server on loopback that serves a folder, and misbehaves where a path's first part says so.

/stall/NAME sends half of NAME and then waits until `release`; /cut/NAME sends half and hangs up;
/forbidden/NAME is refused. Everything else is Python's own file server, index pages included.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WebServer:
    """Where a served folder is, and what was asked of it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.fetched: list[str] = []
        self.released = threading.Event()


@contextmanager
def serve_folder(folder: Path) -> Iterator[WebServer]:
    """Serves a folder on a free port until the block ends."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def do_HEAD(self) -> None:
            self._strip()
            super().do_HEAD()

        def do_GET(self) -> None:
            state.fetched.append(self.path)
            trouble = self._strip()
            if trouble == "forbidden":
                self.send_error(403)
            elif trouble in ("stall", "cut"):
                self._send_half()
                if trouble == "stall":
                    state.released.wait(60)
            else:
                super().do_GET()

        def _strip(self) -> str:
            """Takes the misbehaviour off the path, unless it is over."""
            first, _, rest = self.path.lstrip("/").partition("/")
            if first not in ("stall", "cut", "forbidden"):
                return ""
            self.path = f"/{rest}"
            return "" if first == "stall" and state.released.is_set() else first

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
        state = WebServer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()
