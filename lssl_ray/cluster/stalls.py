"""The driver's eye on training workers: what those left that stalled, and what all wait for.

A worker that stalls ends itself (`training/stalling.py`), its stacks in a file on its own node. The
desk knows who started and who ended in good order; who did neither is dead, and a task on its node
brings what it left into the run's logs. That needs no folder that nodes share.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
import ray.train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lssl_ray.cluster.capacity import Need, list_rooms
from lssl_ray.cluster.waiting import describe_missing_steps, describe_missing_workers
from lssl_ray.training.stalling import (
    LOGS_FOLDER,
    STEP,
    OnPhase,
    name_dump,
    read_dump,
    watching_for_stalls,
)
from lssl_ray.whole_files import write_whole

STALL = "stall"  # the event
POLL_SECONDS = 5.0
ANSWER_SECONDS = 10.0
COLLECT_SECONDS = 60.0
# A worker group starts in about 20 s, a first batch in 30; nodes take minutes.
FIRST_WORD_SECONDS = 60.0
NEXT_WORD_SECONDS = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartedWorker:
    """A worker whose life the driver follows.

    Attributes:
        rank: Of the worker.
        actor_id: Ray's.
        node_id: Ray's, of its node.
        path: On that node, what it is at; see `training.stalling`.
    """

    rank: int
    actor_id: str
    node_id: str
    path: str


@dataclass(frozen=True)
class WorkerNews:
    """What the desk heard since it was last asked.

    Attributes:
        started: Workers that began.
        ended: Actor ids of workers that ended in good order.
        stepping: Actor ids of workers that have begun their first step.
    """

    started: tuple[StartedWorker, ...]
    ended: tuple[str, ...]
    stepping: tuple[str, ...]


@contextmanager
def watching_worker(desk: Any, *, rank: int, seconds: float) -> Iterator[OnPhase]:
    """In a worker: `watching_for_stalls`, and the driver knows where to look.

    Args:
        desk: Of the run.
        rank: Of this worker.
        seconds: The longest that a phase may take, 0 for any time.
    """
    context = ray.get_runtime_context()
    actor_id = context.get_actor_id()
    # Beside Ray's logs of the node: a killed worker leaves it there, and it goes with them.
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    path = logs / f"lssl-worker-{actor_id}.txt"
    desk.add_worker.remote(StartedWorker(rank, actor_id, context.get_node_id(), str(path)))
    is_stepping = False
    try:
        with watching_for_stalls(path, seconds=seconds, rank=rank) as watch:

            def on_phase(phase: str, *, step: int) -> None:
                nonlocal is_stepping
                watch(phase, step=step)
                if phase == STEP and not is_stepping:
                    is_stepping = True
                    desk.note_stepping.remote(actor_id)

            yield on_phase
    finally:
        desk.end_worker.remote(actor_id)


class WorkerWatch:
    """In the driver, around training: a thread that asks the desk, and tells a person.

    Args:
        desk: Of the run.
        run_folder: Of the run; dumps go to its logs.
        worker: Need of one worker.
        num_workers: Workers that training needs to start.
        decoder: Need of one decoder.
        num_decoders: As configured.
    """

    def __init__(
        self,
        desk: Any,
        *,
        run_folder: Path,
        worker: Need,
        num_workers: int,
        decoder: Need,
        num_decoders: int,
    ) -> None:
        self._desk = desk
        self._logs = run_folder / LOGS_FOLDER
        self._worker, self._num_workers = worker, num_workers
        self._decoder, self._num_decoders = decoder, num_decoders
        self._asked: ray.ObjectRef[WorkerNews] | None = None
        self._living: dict[str, StartedWorker] = {}
        self._stepping: set[str] = set()
        self._dumps: list[Path] = []
        self._speak_at = time.monotonic() + FIRST_WORD_SECONDS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="worker-watch", daemon=True)

    def __enter__(self) -> "WorkerWatch":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if kind is None or issubclass(kind, ray.train.TrainingFailedError):
            self._thread.join(COLLECT_SECONDS)
            self._look(is_over=True)
        else:  # who was told to leave does not look for what workers left
            self._thread.join(POLL_SECONDS)

    def describe_stalls(self) -> str:
        """For an error: where the stacks are of those that stalled; nothing if none did."""
        if not self._dumps:
            return ""
        dumps = ", ".join(str(dump) for dump in self._dumps)
        return f" {len(self._dumps)} of them stalled; their stacks: {dumps}."

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            self._look(is_over=False)
            self._speak()

    def _look(self, *, is_over: bool) -> None:
        """Follow up who started, and who died: when training is over, all that are left."""
        try:
            self._hear(ANSWER_SECONDS if is_over else POLL_SECONDS)
        except ray.exceptions.RayError as error:
            logger.warning("The run's desk does not say how its workers are: %s", error)
            self._asked = None
        for worker in list(self._living.values()):
            if is_over or _is_dead(worker.actor_id):
                self._collect(worker)

    def _hear(self, seconds: float) -> None:
        """Take the desk's news; it may be busy opening data, then another time."""
        if self._asked is None:
            self._asked = self._desk.take_news.remote()
        if not ray.wait([self._asked], timeout=seconds)[0]:
            return
        news = ray.get(self._asked)
        self._asked = None
        self._living |= {worker.actor_id: worker for worker in news.started}
        self._stepping.update(news.stepping)
        for actor_id in news.ended:
            self._living.pop(actor_id, None)
        if news.started or news.ended:
            self._speak_at = time.monotonic() + FIRST_WORD_SECONDS

    def _collect(self, worker: StartedWorker) -> None:
        """Bring what a dead worker left on its node into the run's logs."""
        del self._living[worker.actor_id]
        self._speak_at = time.monotonic() + FIRST_WORD_SECONDS
        there = NodeAffinitySchedulingStrategy(worker.node_id, soft=False)
        take = ray.remote(_take_dump).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        try:
            dump = ray.get(take.remote(worker.path), timeout=COLLECT_SECONDS)
        except ray.exceptions.RayError as error:
            logger.warning(
                "Worker %d died, and what it may have left on its node %s can't be read: %s",
                *(worker.rank, worker.node_id, type(error).__name__),
            )
            return
        if dump is None:
            return
        path = self._logs / name_dump(f"rank{worker.rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, dump)
        self._dumps.append(path)
        message = (
            f"{dump.splitlines()[0]} That is longer than health.stall_seconds, so it was ended. "
            f"Its stacks: {path}"
        )
        row = {"event": STALL, "rank": worker.rank, "dump": path.name, "message": message}
        try:
            ray.get(self._desk.append.remote("events", row), timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError:  # the desk is dead, or stands still itself
            logger.warning("%s", message)

    def _speak(self) -> None:
        """Say what is waited for, after a time without any news, and then now and then."""
        num_there = len(self._living)
        if time.monotonic() < self._speak_at or (
            num_there >= self._num_workers and self._living.keys() <= self._stepping
        ):
            return
        rooms, free = list_rooms(ray.nodes()), ray.available_resources()
        if num_there < self._num_workers:
            text = describe_missing_workers(
                self._worker,
                num_wanted=self._num_workers,
                num_there=num_there,
                rooms=rooms,
                free=free,
            )
        else:
            text = describe_missing_steps(
                self._worker,
                self._decoder,
                num_workers=num_there,
                num_decoders=self._num_decoders,
                rooms=rooms,
                free=free,
            )
        logger.warning("Training waits. %s", text)
        self._speak_at = time.monotonic() + NEXT_WORD_SECONDS


def _is_dead(actor_id: str) -> bool:
    # Ray forgets the oldest of the dead.
    state: str = ray._private.state.actors(actor_id).get("State", "DEAD")
    return state == "DEAD"


def _take_dump(path: str) -> str | None:
    """On a worker's node: what it left, which is then gone; None if it did not stall."""
    dump = read_dump(Path(path))
    Path(path).unlink(missing_ok=True)
    return dump
