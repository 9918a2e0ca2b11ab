"""What an index run has probed so far, beside its output: a killed run goes on from there.

Not here: what a known row is good for (`reuse`). A journal is a cache: one that can't be read or is
of another version is begun anew, and it is removed once the manifest is written.
"""

import fcntl
import json
import logging
import os
from types import TracebackType

from lssl_ray.errors import DataError
from lssl_ray.video.manifest import MANIFEST_VERSION, VideoRecord
from lssl_ray.video.probing import PROBING_VERSION

__all__ = ["IndexJournal"]

logger = logging.getLogger(__name__)

_HEADER = {
    "lssl_ray.index_journal": 1,
    "manifest_version": MANIFEST_VERSION,
    "probing_version": PROBING_VERSION,
}


class IndexJournal:
    """Rows of one index run, each written at once, so that a killed process loses none.

    Attributes:
        found: The rows that an interrupted run left.
    """

    def __init__(self, path: str) -> None:
        """Opens or begins a journal and reads it.

        Raises:
            DataError: It can't be written, or another run writes it.
        """
        self._path = path
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise DataError(
                f"{path}: can't be written ({error.strerror}); choose another place for the "
                "manifest."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise DataError(
                f"{path}: another `lssl-ray data index` is writing this manifest; wait for it, or "
                "choose another output."
            ) from error
        except OSError as error:  # a network disk without locks
            logger.warning(
                "%s: can't be locked (%s); run one index at a time", path, error.strerror
            )
        self.found = self._read()
        self._is_needed = bool(self.found)

    def append(self, record: VideoRecord) -> None:
        """Adds a row."""
        self._write(vars(record))
        self._is_needed = True

    def remove(self) -> None:
        """Deletes the file when this closes: the manifest has everything now."""
        self._is_needed = False

    def __enter__(self) -> "IndexJournal":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file and lets others write it; one without rows goes."""
        if not self._is_needed:
            os.unlink(self._path)
        os.close(self._descriptor)

    def _read(self) -> list[VideoRecord]:
        records: list[VideoRecord] = []
        num_whole_bytes = 0
        with open(self._path, "rb") as file:
            for line in file:
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                    if num_whole_bytes == 0 and row != _HEADER:
                        break
                    if num_whole_bytes and row is not None:
                        records.append(VideoRecord(**row))
                except (ValueError, TypeError):
                    row = None
                if row is None:  # cut while being written
                    break
                num_whole_bytes += len(line)
        os.ftruncate(self._descriptor, num_whole_bytes)
        if num_whole_bytes == 0:
            self._write(_HEADER)
        return records

    def _write(self, row: object) -> None:
        data = json.dumps(row).encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]
