"""A web server on loopback that serves a folder of videos and, when told, serves them badly."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

Trouble = Literal["stall", "cut", "absent"]


class VideoServer(ThreadingHTTPServer):
    """Serves `/NAME` for the files of a folder, and a page of links to them at `/`.

    Attributes:
        trouble: By name of the file: half of it, then silence ("stall") or the end of the
            connection ("cut"), or no file at all ("absent").
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.trouble: dict[str, Trouble] = {}
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Where the page of links is."""
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: VideoServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        path = self._answer()
        if path is None:
            return
        trouble = self.server.trouble.get(path.name)
        with path.open("rb") as file:
            if trouble is None:
                shutil.copyfileobj(file, self.wfile)
                return
            self.wfile.write(file.read(path.stat().st_size // 2))
        if trouble == "stall":
            self.server.closing.wait()

    def _answer(self) -> Path | None:
        """Sends the headers; the file whose content is to follow a GET, if any."""
        name = unquote(self.path.lstrip("/"))
        path = self.server.folder / name
        if name and (not path.is_file() or self.server.trouble.get(name) == "absent"):
            self.send_error(404)
            return None
        names = sorted(entry.name for entry in self.server.folder.iterdir())
        page = "".join(f'<a href="{quote(entry)}">{entry}</a>' for entry in names).encode()
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4" if name else "text/html")
        self.send_header("Content-Length", str(path.stat().st_size if name else len(page)))
        self.end_headers()
        if not name and self.command == "GET":
            self.wfile.write(page)
        return path if name else None

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@contextmanager
def serving(folder: Path) -> Iterator[VideoServer]:
    """The server, at work until the end of the block."""
    server = VideoServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
