"""What all processes of a run share, on the driver's node: its journal, and data that is due."""

from pathlib import Path
from typing import Any, cast

import ray
from ray.data import DataIterator
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lssl_ray.cluster.data import ClipStream, build_segment
from lssl_ray.cluster.live_metrics import STALLS, STARTS, LiveMetrics
from lssl_ray.cluster.stalls import STALL, StartedWorker, WorkerNews
from lssl_ray.tracking.journal import QUARANTINE_FILE, Journal, read_rows
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.offenders import count_offences


@ray.remote(num_cpus=0)
class RunDesk:
    """One per run, beside the run folder, for workers wherever they are."""

    def __init__(
        self,
        run_folder: str,
        manifest: "tuple[ray.ObjectRef[Manifest]]",  # in a tuple it is not fetched
        decode_labels: dict[str, str],
    ) -> None:
        self._journal = Journal(Path(run_folder))
        self._quarantine = Path(run_folder) / QUARANTINE_FILE
        (self._manifest,) = manifest
        self._decode_labels = decode_labels
        self._num_sessions = 0
        self._opened: tuple[ClipStream, int] | None = None
        self._shards: list[DataIterator] = []
        self._live = LiveMetrics(Path(run_folder).name)
        self._started: list[StartedWorker] = []
        self._ended: list[str] = []
        self._stepping: list[str] = []

    def append(self, kind: str, record: dict[str, Any]) -> None:
        """Add one row to the journal."""
        self._journal.append(kind, record)
        if kind == "metrics":
            self._live.show_row(record)
        if kind == "events" and record["event"] == STALL:
            self._live.count(STALLS)

    def begin_session(self, step: int) -> None:
        """Go on after a step: later rows are dropped, and so is data opened by workers that died.

        No worker of the session may ask for data before.
        """
        self._journal.rewind(step)
        if self._num_sessions:
            message = f"Workers were started again; training goes on after step {step}."
            self.append("events", {"event": "restart", "step": step, "message": message})
        self._num_sessions += 1
        self._live.count(STARTS)
        self.close_data()

    def close_data(self) -> None:
        """Let go of what is open: Ray ends what ran it, and the decoders' cores are free."""
        self._opened, self._shards = None, []

    def note_checkpoint(self) -> None:
        """A checkpoint is whole."""
        self._live.note_checkpoint()

    def add_worker(self, worker: StartedWorker) -> None:
        """A worker began."""
        self._started.append(worker)

    def note_stepping(self, actor_id: str) -> None:
        """A worker has its first batch."""
        self._stepping.append(actor_id)

    def end_worker(self, actor_id: str) -> None:
        """A worker ended in good order, or with an error that it could raise."""
        self._ended.append(actor_id)

    def take_news(self) -> WorkerNews:
        """What became of workers since this was last asked."""
        news = WorkerNews(tuple(self._started), tuple(self._ended), tuple(self._stepping))
        self._started, self._ended, self._stepping = [], [], []
        return news

    def open_segment(self, stream: ClipStream, segment: int, rank: int) -> DataIterator:
        """A worker's share of a segment; the first worker that asks makes Ray Data ready for all.

        The segment before is let go: with its last handle Ray ends the process that ran it.
        """
        if self._opened != (stream, segment):
            dataset = build_segment(
                stream,
                segment,
                self._manifest,
                labels=self._decode_labels,
                offences=count_offences(read_rows(self._quarantine)),
            )
            self._shards = dataset.streaming_split(stream.num_workers, equal=True)
            self._opened = (stream, segment)
        return self._shards[rank]


def open_desk(run_folder: Path, manifest: Manifest, *, decode_labels: dict[str, str]) -> Any:
    """Start a run's desk on this node.

    Args:
        run_folder: Of the journal.
        manifest: Usable videos only.
        decode_labels: Node labels that decoders need.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = cast(Any, RunDesk).options(scheduling_strategy=here)
    return desk.remote(str(run_folder), (ray.put(manifest),), decode_labels)
