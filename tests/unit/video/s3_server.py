"""An object store on loopback: as much of S3's protocol as reading a bucket takes."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def serve_bucket(folder: Path, bucket: str, *, denied: Collection[str] = ()) -> Iterator[str]:
    """Serves a folder's files as a bucket's objects; yields the endpoint's address.

    Args:
        folder: Its files are the objects.
        bucket: Its name.
        denied: Keys that are listed, and that nobody may read.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._send_object(with_content=False)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path.strip("/") == bucket:
                self._send_listing({key: value[0] for key, value in parse_qs(parts.query).items()})
            else:
                self._send_object(with_content=True)

        def _send_object(self, *, with_content: bool) -> None:
            name = unquote(urlsplit(self.path).path).strip("/").removeprefix(bucket).lstrip("/")
            path = folder / name
            if name in denied:
                self._send(403, b"")
                return
            if name and not path.is_file():
                self._send(404, b"")
                return
            content = path.read_bytes() if name else b""
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            if with_content and wanted:
                first, _, last = wanted.partition("-")
                part = content[int(first) : int(last) + 1 if last else None]
                self._send(206, part, **{"Content-Range": f"bytes {wanted}/{len(content)}"})
                return
            moment = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
            modified = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
            self._send(200, content, with_content=with_content, **{"Last-Modified": modified})

        def _send_listing(self, query: dict[str, str]) -> None:
            prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
            folders, parts = set(), []
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                key = str(path.relative_to(folder))
                if not key.startswith(prefix):
                    continue
                below = key[len(prefix) :]
                if delimiter and delimiter in below:
                    folders.add(prefix + below.split(delimiter)[0] + delimiter)
                    continue
                moment = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
                parts.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                    f"<LastModified>{moment:%Y-%m-%dT%H:%M:%S}.000Z</LastModified></Contents>"
                )
            parts += [
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                for name in sorted(folders)
            ]
            body = (
                '<?xml version="1.0" encoding="UTF-8"?>'
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
                f"<KeyCount>{len(parts)}</KeyCount><MaxKeys>1000</MaxKeys>"
                f"<IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>"
            )
            self._send(200, body.encode(), **{"Content-Type": "application/xml"})

        def _send(
            self, status: int, content: bytes, *, with_content: bool = True, **headers: str
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
