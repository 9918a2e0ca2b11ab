"""Files behind a URI (s3://, gs://, http://, ...): whether they are there, their size and time.

pyarrow opens the object stores, fsspec everything else; credentials come from the environment only
(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ~/.netrc, ...), never from a URI, because URIs
stand in manifests. Not here: their content (`fetching`).
"""

import contextlib
import email.utils
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

from lssl_ray.errors import DataError
from lssl_ray.video.files import first_line

__all__ = [
    "RemoteFile",
    "as_local_path",
    "find_remote_errors",
    "find_scheme",
    "has_scheme",
    "is_remote_folder",
    "list_remote",
    "match_remote",
    "open_filesystem",
    "read_remote",
    "stat_all_remote",
    "stat_remote",
]

NUM_REQUESTS = 16  # asked at a time where a server tells sizes only file by file

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ARROW_SCHEMES = frozenset({"s3", "gs", "gcs", "hdfs"})
_HTTP_SCHEMES = frozenset({"http", "https"})
_GONE_STATUSES = frozenset({404, 410})
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "Last-Modified")


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URI.

    Attributes:
        uri: Where it is.
        size_bytes: Its size, 0 if the server doesn't say.
        mtime_ns: Its modification time, nanoseconds since 1970, 0 if the server doesn't say.
    """

    uri: str
    size_bytes: int
    mtime_ns: int


def has_scheme(path: str) -> bool:
    """Whether a path is a URI."""
    return _SCHEME.match(path) is not None


def as_local_path(path: str) -> str:
    """The path that a file:// URI names; other paths as they are.

    Raises:
        DataError: The URI names another machine.
    """
    if not path.lower().startswith("file://"):
        return path
    parts = urlsplit(path)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise DataError(
            f"{path}: a file URI must be file:///absolute/path on this machine; write the plain "
            "path if in doubt."
        )
    # A '#' or '?' belongs to a file's name here.
    return unquote(path.split("://", 1)[1].removeprefix(parts.netloc))


def is_remote_folder(uri: str) -> bool:
    """Whether a URI is a folder; on the web, whether it looks like one.

    Raises:
        DataError: It can't be asked.
    """
    if find_scheme(uri) in _HTTP_SCHEMES:
        return not os.path.splitext(urlsplit(uri).path)[1]
    with _explained(uri):
        filesystem, path = open_filesystem(uri)
        return bool(filesystem.isdir(path))


def list_remote(uri: str, *, wanted: Callable[[str], bool]) -> list[RemoteFile]:
    """All files below a folder, sorted by URI.

    Args:
        uri: The folder. On the web it must have an index page with links.
        wanted: Of which files size and time are asked where that costs a request each; the others
            have zeros.

    Raises:
        DataError: The folder can't be listed.
    """
    with _explained(uri):
        filesystem, path = open_filesystem(uri)
        if find_scheme(uri) in _HTTP_SCHEMES:
            links = sorted({link.split("#")[0] for link in filesystem.find(path)})
            asked = [link for link in links if wanted(link)]
            known = dict(zip(asked, stat_all_remote(asked), strict=True))
            # What is linked and can't be had is for the probe to explain.
            return [known.get(link) or RemoteFile(link, 0, 0) for link in links]
        entries = filesystem.find(path, detail=True)
        return [
            _describe(_as_uri(name, filesystem, uri), entries[name]) for name in sorted(entries)
        ]


def match_remote(pattern: str) -> list[tuple[str, bool]]:
    """URIs that match a pattern with `*`, `?` or `[...]`, sorted, and which of them are folders.

    Raises:
        DataError: The store can't be asked.
    """
    with _explained(pattern):
        filesystem, path = open_filesystem(pattern)
        found = filesystem.glob(path, detail=True)
        return [
            (_as_uri(name, filesystem, pattern), found[name].get("type") == "directory")
            for name in sorted(found)
        ]


def stat_remote(uri: str) -> RemoteFile | None:
    """Size and time of one file, or None if there is no such file.

    A web server that doesn't answer, or refuses, and a store that keeps this file from us, give
    zeros: fetching will tell why.

    Raises:
        DataError: The store can't be asked.
    """
    with _explained(uri):
        filesystem, path = open_filesystem(uri)
        try:
            return _describe(uri, filesystem.info(path))
        except OSError as error:
            if _is_denied(error):
                return RemoteFile(uri, 0, 0)
            if not isinstance(error, FileNotFoundError):
                raise
            refused = error.__cause__ is not None
            is_gone = getattr(error.__cause__, "status", None) in _GONE_STATUSES
            return RemoteFile(uri, 0, 0) if refused and not is_gone else None


def stat_all_remote(uris: Sequence[str]) -> list[RemoteFile | None]:
    """`stat_remote` of each, several at a time."""
    if not uris:
        return []
    with ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="lssl_ray_stat") as threads:
        return list(threads.map(stat_remote, uris))


def read_remote(uri: str) -> bytes:
    """The content of a small file, such as a list.

    Raises:
        DataError: It can't be read.
    """
    with _explained(uri):
        filesystem, path = open_filesystem(uri)
        content: bytes = filesystem.cat_file(path)
        return content


def open_filesystem(uri: str) -> tuple[Any, str]:
    """An fsspec filesystem and the path on it.

    Raises:
        DataError: The URI holds what belongs into the environment.
        Exception: One of `find_remote_errors`.
    """
    if urlsplit(uri).password is not None:
        raise DataError(
            f"{uri.split('@')[-1]}: leave passwords and keys out of the URI, which is written to "
            "manifests; they are taken from the environment (AWS_ACCESS_KEY_ID, ~/.netrc, ...)."
        )
    if find_scheme(uri) in _ARROW_SCHEMES:
        if "?" in uri:
            raise DataError(
                f"{uri}: leave options out of the URI; region and server are taken from the "
                "environment (AWS_REGION, AWS_ENDPOINT_URL)."
            )
        # The rest of such a URI is a name as it is, spaces and percent signs included.
        store, _, name = uri.split("://", 1)[1].partition("/")
        root = f"{find_scheme(uri)}://{store}"
        if find_scheme(uri) == "hdfs":
            return _open_arrow(f"{root}/"), f"/{name}"
        return _open_arrow(root), f"{store}/{name}".rstrip("/")
    fsspec: Any = importlib.import_module("fsspec")
    # Proxies and ~/.netrc are part of the environment.
    options = {"client_kwargs": {"trust_env": True}} if find_scheme(uri) in _HTTP_SCHEMES else {}
    filesystem, path = fsspec.core.url_to_fs(uri, **options)
    return filesystem, path


@functools.lru_cache(maxsize=16)
def _open_arrow(uri: str) -> Any:
    """A store by its address; opening one may ask for its region, so it is done once."""
    arrow: Any = importlib.import_module("pyarrow.fs")
    wrapper: Any = importlib.import_module("fsspec.implementations.arrow").ArrowFSWrapper
    return wrapper(arrow.FileSystem.from_uri(uri)[0])


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except find_remote_errors() as error:
        raise DataError(
            f"{uri}: can't be read ({type(error).__name__}: {first_line(error)}); check the "
            "address, the network, and that credentials are in the environment."
        ) from error


def find_remote_errors() -> tuple[type[Exception], ...]:
    """What stores raise; a web client's own errors only once that client is in use."""
    errors: list[type[Exception]] = [OSError, ValueError, ImportError, NotImplementedError]
    for module, name in (("aiohttp", "ClientError"), ("asyncio", "TimeoutError")):
        if module in sys.modules:
            errors.append(getattr(sys.modules[module], name))
    return tuple(errors)


def _is_denied(error: OSError) -> bool:
    """Whether a store answered that this account may not read a file; S3 says it in words only."""
    return isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error)


def _describe(uri: str, info: dict[str, Any]) -> RemoteFile:
    times = (info[key] for key in _TIME_KEYS if info.get(key) is not None)
    return RemoteFile(uri, int(info.get("size") or 0), _as_nanoseconds(next(times, None)))


def _as_nanoseconds(moment: Any) -> int:
    """A time in any of the forms that filesystems give it in; 0 if it is in none of them."""
    if isinstance(moment, str):
        try:
            moment = email.utils.parsedate_to_datetime(moment)
        except ValueError:
            with contextlib.suppress(ValueError):
                moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return round(aware.timestamp() * 1_000_000) * 1000
    return round(moment * 1_000_000) * 1000 if isinstance(moment, int | float) else 0


def _as_uri(name: str, filesystem: Any, given: str) -> str:
    """A listed name in the form in which the user gave its folder."""
    scheme = find_scheme(given)
    if scheme in _HTTP_SCHEMES:
        return name
    if scheme in _ARROW_SCHEMES:
        host = urlsplit(given).netloc if scheme == "hdfs" else ""  # elsewhere a part of the name
        return f"{scheme}://{host}{name}"
    return str(filesystem.unstrip_protocol(name))


def find_scheme(uri: str) -> str:
    """The lower-case scheme of a URI."""
    return uri.split("://", 1)[0].lower()
