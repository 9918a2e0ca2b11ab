"""What a tracking service has of a run, and what it still has to get: one small file per writer.

The rows themselves stay in the journal; here is which of their steps the service took, and all
that has no place in the journal: final results, artifacts, tags, the status. It is written anew,
whole, after every change, so that whoever opens the run next goes on where the last one was killed.
It knows no service.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.base import RunStatus
from lssl_ray.tracking.journal import TIME_KEY
from lssl_ray.tracking.service import Point, TrackedRun, build_points
from lssl_ray.tracking.steps import StepSet
from lssl_ray.whole_files import write_whole

logger = logging.getLogger(__name__)

OUTBOX_FOLDER = "tracking"
MAIN_OUTBOX, ADDED_OUTBOX = "run", "added"  # of the run itself; of what others add to it
_VERSION = 1


class Outbox:
    """State of one writer's deliveries; safe to use from several threads.

    Args:
        path: The file. When it tells of the same run of the same service, it is gone on from.
        run: The run.
    """

    def __init__(self, path: Path, run: TrackedRun) -> None:
        self.path = path
        self.run = run
        self.run_id: str | None = None
        self.described = False
        self.refused: dict[str, str] = {}
        self._lock = threading.RLock()
        self._sent: dict[str, StepSet] = {}
        self._results: list[dict[str, Any]] = []
        self._artifacts: list[dict[str, Any]] = []
        self._tags: dict[str, str] = {}
        self._status: list[Any] | None = None
        self._said: dict[str, tuple[int, int, float]] = {}  # last of each key: step, time, value
        self._read()

    @property
    def folder(self) -> Path:
        """The run's folder, wherever it is by now."""
        return self.path.parent.parent

    def adopt(self, run_id: str, known: Mapping[str, Sequence[Point]]) -> None:
        """Take over what the service's run has: another one than known here, or a new one."""
        with self._lock:
            if run_id != self.run_id:
                self._forget_sent()
                self.run_id = run_id
            for key, points in known.items():
                self.mark_points(points)
                self._said[key] = max((point.step, point.unix_ms, point.value) for point in points)

    def select_points(self, row: Mapping[str, Any]) -> list[Point]:
        """What the service still lacks of a journal row."""
        with self._lock:
            return [
                point
                for point in build_points(row)
                if point.key not in self.refused and point.step not in self._sent.get(point.key, ())
            ]

    def mark_points(self, points: Iterable[Point]) -> None:
        """The service has these."""
        with self._lock:
            for point in points:
                self._sent.setdefault(point.key, StepSet()).add(point.step)

    def add_result(self, row: Mapping[str, Any]) -> None:
        """A row that the journal does not hold; what was said last of a key is not said again."""
        with self._lock:
            said = {key: (step, value) for key, (step, _, value) in self._said.items()}
            for item in self._results:
                said |= {p.key: (p.step, p.value) for p in build_points(item["row"])}
            new = {
                point.key: point.value
                for point in build_points(row)
                if said.get(point.key) != (point.step, point.value)
            }
            if new:
                item = {"row": {TIME_KEY: row[TIME_KEY], "step": row["step"], **new}, "due": True}
                self._results.append(item)
                self.save()

    def list_results(self) -> list[dict[str, Any]]:
        """Results that are due; `mark_done` those that arrived."""
        with self._lock:
            return [item for item in self._results if item["due"]]

    def add_artifact(self, path: Path, folder: str | None) -> None:
        """A file or folder to upload, unless it is there as it is now."""
        inside = path.is_relative_to(self.folder)
        name = str(path.relative_to(self.folder) if inside else path.absolute())
        with self._lock:
            for item in self._artifacts:
                if (item["path"], item["folder"]) == (name, folder):
                    break
            else:
                item = {"path": name, "folder": folder, "sent": None, "due": False}
                self._artifacts.append(item)
            item["due"] = item["sent"] != compute_fingerprint(path)
            self.save()

    def renew_artifacts(self) -> None:
        """Whatever changed on disk since it was uploaded is due again, if it is still there."""
        with self._lock:
            for item in self._artifacts:
                path = self.folder / item["path"]
                if path.exists():
                    item["due"] = item["sent"] != compute_fingerprint(path)

    def list_artifacts(self) -> list[dict[str, Any]]:
        """Artifacts that are due."""
        with self._lock:
            return [item for item in self._artifacts if item["due"]]

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Tags to set."""
        with self._lock:
            self._tags |= tags
            self.save()

    def list_tags(self) -> dict[str, str]:
        """Tags that are due."""
        with self._lock:
            return dict(self._tags)

    def mark_tags(self, tags: Mapping[str, str]) -> None:
        """The service has these, unless they changed meanwhile."""
        with self._lock:
            for key, value in tags.items():
                if self._tags.get(key) == value:
                    del self._tags[key]
            # Another service is told of them with the rest.
            self.run = replace(self.run, tags={**self.run.tags, **tags})

    def refuse(self, what: str, reason: str) -> None:
        """The service will never take this; the next process tries once more."""
        with self._lock:
            self.refused[what] = reason

    def set_status(self, status: RunStatus, *, unix_ms: int) -> None:
        """A status to set, and since when it holds."""
        with self._lock:
            self._status = [status, unix_ms, True]
            self.save()

    @property
    def status(self) -> tuple[str, int] | None:
        """Last status that was to be set, and since when it holds."""
        return None if self._status is None else (self._status[0], self._status[1])

    @property
    def is_status_due(self) -> bool:
        """Whether the service has yet to hear of the status."""
        return self._status is not None and bool(self._status[2])

    def mark_status(self, status: tuple[str, int]) -> None:
        """The service has this status, unless it changed meanwhile."""
        with self._lock:
            if self._status is not None and self.status == status:
                self._status[2] = False

    @property
    def has_due(self) -> bool:
        """Whether anything but journal rows is due."""
        with self._lock:
            waiting = self.list_results() or self.list_artifacts() or self._tags
            return bool(waiting) or self.is_status_due or not self.described

    def save(self) -> None:
        """Write the file anew."""
        with self._lock:
            state = {
                "version": _VERSION,
                "run": asdict(self.run),
                "run_id": self.run_id,
                "described": self.described,
                "sent": {key: steps.to_json() for key, steps in self._sent.items()},
                "results": self._results,
                "artifacts": self._artifacts,
                "tags": self._tags,
                "status": self._status,
                "refused": self.refused,
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(state, ensure_ascii=False))

    def _read(self) -> None:
        try:
            state = _read_state(self.path)
        except FileNotFoundError:
            return
        except ConfigError as error:
            logger.warning("%s What the service has is asked of it instead.", error)
            return
        run = TrackedRun(**state["run"])
        self._results, self._artifacts = state["results"], state["artifacts"]
        self._tags, self._status = state["tags"], state["status"]
        here = (self.run.uri, self.run.experiment, self.run.run_folder)
        if (run.uri, run.experiment, run.run_folder) != here:  # or a copied folder
            self._forget_sent()
            return
        # Settings are those of the first session: a service takes each only once.
        self.run = replace(run, tags=self.run.tags | run.tags)
        self.run_id, self.described = state["run_id"], state["described"]
        self._sent = {key: StepSet(runs) for key, runs in state["sent"].items()}

    def _forget_sent(self) -> None:
        self.run_id, self.described = None, False
        self._sent = {}
        for item in self._results:
            item["due"] = True
        for item in self._artifacts:
            item["due"], item["sent"] = True, None
        if self._status is not None:
            self._status[2] = True


def load_outbox(path: Path, *, uri: str | None = None, experiment: str | None = None) -> Outbox:
    """An outbox as its writer left it, or turned to another service or experiment.

    Raises:
        ConfigError: It can't be read.
    """
    run = _read_state(path)["run"]
    if uri not in (None, run["uri"]):
        run |= {"uri": uri, "parent_run_id": None}  # runs of another store are not known there
    return Outbox(path, TrackedRun(**(run | {"experiment": experiment or run["experiment"]})))


def move_outboxes(folder: Path, *, run_folder: Path) -> None:
    """Tell the outboxes of a run that came from elsewhere where its folder is now.

    What the service has is asked of it, when the run goes on: it may be more than they know.

    Raises:
        ConfigError: One can't be read.
    """
    for path in sorted((folder / OUTBOX_FOLDER).glob("*.json")):
        state = _read_state(path)
        state["run"]["run_folder"], state["run_id"] = str(run_folder), None
        write_whole(path, json.dumps(state, ensure_ascii=False))


def compute_fingerprint(path: Path) -> list[int]:
    """Number of files, bytes, and newest time of change, of a file or folder; pure of its content.

    A path that is not there has no files.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [file.stat() for file in files]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return [len(files), sum(stat.st_size for stat in stats), newest]


def mark_done(items: Sequence[dict[str, Any]]) -> None:
    """Results or artifacts that need not be sent any more."""
    for item in items:
        item["due"] = False


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = state["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no record of what a tracking service has: {error!r}.") from (
            error
        )
    if version != _VERSION:
        raise ConfigError(
            f"{path} has version {version}, this program reads {_VERSION}; go on with the program "
            "that wrote it, or move the file away."
        )
    return state
