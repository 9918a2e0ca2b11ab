"""Writing to a run's place behind a URI, reading it back and deleting it."""

import os
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

from lssl_ray.errors import CheckpointError
from lssl_ray.storage import open_run_store

_NAME = "probe.txt"


def try_store(storage: str) -> str:
    """Put a small file into a store, read it, delete it; returns what was done, for a person.

    Args:
        storage: `run.storage`.

    Raises:
        ConfigError: Nothing opens such a URI.
        CheckpointError: The store refused, or gave something else back.
    """
    name = f"lssl_ray-doctor-{uuid.uuid4().hex}"
    # Somebody waits for the answer: one more attempt is enough.
    store = replace(open_run_store(storage, name=name), retry_seconds=(1.0,))
    content = f"{os.uname().nodename} {name}\n".encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _NAME
        path.write_bytes(content)
        store.put(path, _NAME)
    try:
        if store.read(_NAME) != content:
            raise CheckpointError(
                f"{store.uri}/{_NAME} is not read back as it was put there; is it the same store "
                "for reading and writing?"
            )
    finally:
        store.delete()
    return f"{storage}: put, read and deleted {len(content)} bytes"
