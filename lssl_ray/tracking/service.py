"""What a tracking service has to offer, and what is said to it: a run and its metrics' values."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lssl_ray.tracking.journal import TIME_KEY

MAX_POINTS = 1000  # per call


@dataclass(frozen=True)
class TrackedRun:
    """What a service knows a run by, and what is said of it once.

    Attributes:
        uri: The service.
        experiment: Group of runs.
        run_name: Name of the run.
        run_folder: With the name, what a person knows it by.
        kind: `train` or `sweep`.
        parent_run_id: Run of the service that this one is nested under.
        params: Flattened settings.
        tags: Further tags.
        uid: What it is found by: a folder that is thrown away and made anew is another run.
    """

    uri: str
    experiment: str
    run_name: str
    run_folder: str
    kind: str
    parent_run_id: str | None
    params: dict[str, str]
    tags: dict[str, str]
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Point:
    """One value of one metric; equal points are one point to the service."""

    key: str
    value: float
    step: int
    unix_ms: int


class ServiceAwayError(Exception):
    """The service did not take a call; the same call may do later."""


class ServiceRefusalError(Exception):
    """The service will never take this call."""


class Service(Protocol):
    """One run at a tracking service. Calls may be repeated: nothing is there twice.

    All raise ServiceAwayError or ServiceRefusalError.
    """

    def find_run(self, known_id: str | None) -> str | None:
        """The run's id, if the service has it, perhaps under the id known so far."""

    def create_run(self) -> str:
        """Make the run; its id."""

    def read_points(self, run_id: str) -> dict[str, list[Point]]:
        """All that the run has, by key."""

    def describe_run(self, run_id: str) -> None:
        """Add the settings and tags that the run lacks."""

    def send_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Add at most `MAX_POINTS` values in one call."""

    def send_artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        """Upload a file or folder."""

    def send_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""

    def send_status(self, run_id: str, status: str, unix_ms: int) -> None:
        """Set the status, and the end if it is one."""


def build_points(row: Mapping[str, Any]) -> list[Point]:
    """A row's metrics, `section/name`; what is not finite has no place in a service."""
    unix_ms = round(1000 * row[TIME_KEY])
    return [
        Point(key, float(value), int(row["step"]), unix_ms)
        for key, value in row.items()
        if "/" in key
        and key != TIME_KEY
        and isinstance(value, int | float)
        and math.isfinite(value)
    ]
