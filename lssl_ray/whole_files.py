"""Files that are there whole or not at all: written under another name, then put in place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`, of the same ending; the file under it takes its place at the end.

    After an error nothing is left of it, and what was at `path` is still there.

    Raises:
        OSError: The file can't be put in place.
    """
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OSError: It can't be written.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
