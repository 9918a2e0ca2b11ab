"""The content of a URI in memory, for a decoder that opens only files.

Runs in the decode child, whose parent counts the download against the clip's deadline and kills a
stalled one: that costs the clip and nothing else. Nothing is kept on disk or for the next request.
Not here: which stores there are (`remote`).
"""

import contextlib
import importlib
import io
import os
from collections.abc import Iterator
from typing import Any

from lssl_ray.video.files import ReaderError, first_line
from lssl_ray.video.remote import (
    as_local_path,
    find_remote_errors,
    find_scheme,
    has_scheme,
    open_filesystem,
)

__all__ = ["MAX_FETCH_BYTES", "open_local"]

MAX_FETCH_BYTES = 2 << 30  # memory a remote video may take on the node that decodes it


@contextlib.contextmanager
def open_local(path: str, *, max_bytes: int = MAX_FETCH_BYTES) -> Iterator[str]:
    """A path that a decoder can open: a local one as it is, a URI's content as a memory file.

    Args:
        path: A local path or a URI.
        max_bytes: Size from which a remote file is refused.

    Raises:
        ReaderError: "missing", "too_large", or "fetch_failed" for anything else that kept the
            content from arriving whole.
    """
    if not has_scheme(path):
        yield path
        return
    if find_scheme(path) == "file":
        yield as_local_path(path)
        return
    descriptor = os.memfd_create("lssl_ray_remote", os.MFD_CLOEXEC)
    try:
        _fetch(path, descriptor, max_bytes)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


class _BoundedFile(io.RawIOBase):
    """Writes to a descriptor up to a limit."""

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._num_bytes = 0

    def writable(self) -> bool:
        return True

    def expect(self, num_bytes: int | None) -> None:
        """Refuses a size that was announced before it is fetched."""
        if num_bytes is not None and num_bytes > self._max_bytes:
            raise ReaderError(
                "too_large", f"has {num_bytes} bytes; at most {self._max_bytes} are fetched"
            )

    def write(self, data: Any) -> int:
        self._num_bytes += len(data)
        if self._num_bytes > self._max_bytes:
            raise ReaderError("too_large", f"has more than {self._max_bytes} bytes")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return len(data)


def _fetch(uri: str, descriptor: int, max_bytes: int) -> None:
    target = _BoundedFile(descriptor, max_bytes)
    callback: Any = importlib.import_module("fsspec.callbacks").Callback()
    callback.set_size = target.expect
    try:
        filesystem, path = open_filesystem(uri)
        filesystem.get_file(path, target, callback=callback)
    except FileNotFoundError as error:
        raise ReaderError("missing", "does not exist there") from error
    except ReaderError:
        raise
    except find_remote_errors() as error:
        raise ReaderError("fetch_failed", f"{type(error).__name__}: {first_line(error)}") from error
