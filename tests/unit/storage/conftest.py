"""Stores for tests: a folder, and an S3 bucket on loopback."""

from collections.abc import Iterator
from pathlib import Path

import object_store
import pytest

from lssl_ray.storage import RunStore, open_run_store


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which s3://bucket is a bucket; tests share it."""
    with object_store.serve_bucket() as environment:
        yield environment


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A value of run.storage that holds nothing yet."""
    if request.param == "file":
        return f"file://{tmp_path}/kept here"
    for name, value in request.getfixturevalue("bucket").items():
        monkeypatch.setenv(name, value)
    return f"s3://{object_store.BUCKET}/{tmp_path.name}/kept here"


@pytest.fixture
def store(storage: str) -> RunStore:
    """A run's place there."""
    return open_run_store(storage, name="mine")
