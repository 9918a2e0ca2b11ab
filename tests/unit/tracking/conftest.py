"""Fixtures of tracked runs in a real SQLite store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_run import OpenTracker

from lssl_ray.tracking.journal import Journal
from lssl_ray.tracking.mlflow import MlflowTracker


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for all: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run's folder, with an empty journal."""
    path = tmp_path / "runs" / "run"
    path.mkdir(parents=True)
    Journal(path)
    return path


@pytest.fixture
def open_tracker(uri: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[OpenTracker]:
    """Opens the tracker of the run in `folder`, in an experiment of the test's own."""
    opened = []

    def open_run(**changes: Any) -> MlflowTracker:
        arguments: dict[str, Any] = {
            "experiment": request.node.name,
            "run_name": "run",
            "run_folder": folder,
            "params": {"optim.epochs": 3},
            "tags": {"lssl.manifest_digest": "abc"},
        }
        opened.append(MlflowTracker(uri, **(arguments | changes)))
        return opened[-1]

    yield open_run
    for tracker in opened:
        tracker.close()
