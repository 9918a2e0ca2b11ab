"""Ray Data pipelines: decode in actors on CPU nodes, stream fixed-shape uint8 blocks to workers.

One row of the source is one unit: what one worker trains on in one step. A decode task turns a unit
into one block of exactly `clips_per_worker` rows, blank ones last where a worker's share is
smaller. With order preserved, `streaming_split` deals equal blocks to workers in turn, so unit u
reaches worker u mod N: order, split and resume follow from the plan alone (`video/order.py`), and
each worker checks the positions it gets.

Ray Data keeps something of every block for as long as the process lives that runs an execution. So
a session is cut into segments, each a dataset of its own with such a process of its own.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, Datasource, ExecutionOptions, ExecutionResources
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from lssl_ray.video.manifest import Manifest
from lssl_ray.video.offenders import Offence
from lssl_ray.video.order import RunPlan, compute_share
from lssl_ray.video.recipe import DecodeSettings, ViewRecipe

if TYPE_CHECKING:
    from lssl_ray.video.pipeline import Columns

# Decoded blocks that may lie in the object store, per decoder and per worker.
BLOCKS_IN_STORE = 8
MIN_STORE_BYTES = 64 * 2**20
# What a block takes beside its pixels: names, reasons and Arrow's own.
BLOCK_MARGIN_BYTES = 2**20
# Least time between steps of Ray Data's loop, which waits 0.1 s where it waits at all.
SCHEDULING_SECONDS = 0.05


@dataclass(frozen=True)
class ClipStream:
    """The clips of one training session.

    Attributes:
        plan: The whole run's visits.
        start_position: Where the session starts.
        num_steps: Steps of the session.
        num_workers: Training workers of the session.
        clips_per_step: Over all workers, whatever their number.
        recipe: Views to cut.
        settings: How videos are opened.
        num_decoders: Decode actors, one core each.
        decode_memory_mib: Memory set aside per decode actor and its child.
        max_segment_units: Units of one execution; rounded down to whole steps, at least one.
    """

    plan: RunPlan
    start_position: int
    num_steps: int
    num_workers: int
    clips_per_step: int
    recipe: ViewRecipe
    settings: DecodeSettings
    num_decoders: int
    decode_memory_mib: int
    max_segment_units: int

    @property
    def clips_per_worker(self) -> int:
        """Rows of a block: the largest share of a step."""
        return -(-self.clips_per_step // self.num_workers)

    @property
    def num_segments(self) -> int:
        """Executions that the session takes."""
        return -(-self.num_steps // self._segment_steps)

    @property
    def block_bytes(self) -> int:
        """Pixels of one unit."""
        kinds = (self.recipe.global_views, self.recipe.local_views)
        clip = sum(3 * kind.count * kind.num_frames * kind.size**2 for kind in kinds)
        return self.clips_per_worker * clip

    @property
    def _segment_steps(self) -> int:
        return max(1, self.max_segment_units // self.num_workers)

    def segment_steps(self, segment: int) -> range:
        """Steps of the session, from 0, that a segment holds."""
        start = segment * self._segment_steps
        return range(start, min(start + self._segment_steps, self.num_steps))

    def segment_units(self, segment: int) -> range:
        """Worker-steps of the session, from 0, that a segment holds."""
        steps = self.segment_steps(segment)
        return range(steps.start * self.num_workers, steps.stop * self.num_workers)

    def unit_positions(self, unit: int) -> range:
        """Run-wide positions of a unit's clips; none beyond the run's end."""
        step, rank = divmod(unit, self.num_workers)
        share = compute_share(self.clips_per_step, rank=rank, num_workers=self.num_workers)
        first = self.start_position + step * self.clips_per_step
        return range(first + share.start, min(first + share.stop, self.plan.num_positions))


class UnitSource(Datasource):  # type: ignore[misc]  # Any to mypy
    """Units of a segment, one read task each.

    Args:
        units: Worker-steps of the session, from 0.
    """

    def __init__(self, units: range) -> None:
        super().__init__()
        self._units = units

    def get_name(self) -> str:
        """What Ray's logs call it."""
        return "Units"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the unit numbers."""
        return 8 * len(self._units)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per unit, whatever parallelism Ray thinks of: a block must be a unit."""
        metadata = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
        return [ReadTask(partial(_read_unit, unit), metadata) for unit in self._units]


class DecodeUnits:
    """Ray Data actor: units in, blocks of clips out. A bad video is a row, never an exception."""

    def __init__(
        self,
        stream: ClipStream,
        manifest: "ray.ObjectRef[Manifest]",
        offences: Mapping[str, Offence],
    ) -> None:
        # Here and below, not at the top: the desk and Ray's split coordinator load this module,
        # and torch (seconds of a core each) is only for those who decode.
        from lssl_ray.video.pipeline import ClipDecoder

        self._stream = stream
        self._decoder = ClipDecoder(
            ray.get(manifest),
            recipe=stream.recipe,
            settings=stream.settings,
            seed=stream.plan.seed,
            offences=offences,
        )

    def __call__(self, units: dict[str, np.ndarray]) -> "Columns":
        """Decode the one unit of this call."""
        from lssl_ray.video.pipeline import blank_columns

        (unit,) = units["unit"].tolist()
        positions = self._stream.unit_positions(unit)
        visits = self._stream.plan.compute_visits(positions.start, positions.stop)
        columns = blank_columns(self._stream.recipe, self._stream.clips_per_worker)
        for row, visit in enumerate(visits):
            self._decoder.decode_into(columns, row, visit)
        return columns


class PacedScheduling(ExecutionCallback):  # type: ignore[misc]  # Any to mypy
    """Keeps Ray Data's loop from taking a core while blocks wait for a step slower than they.

    Then there is no task to start and no block that it may take, and the loop (2.60) never waits.
    """

    def __init__(self) -> None:
        self._due = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Ray Data calls it after each step of its loop, in the loop's thread."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = time.monotonic() + SCHEDULING_SECONDS


def build_segment(
    stream: ClipStream,
    segment: int,
    manifest: "ray.ObjectRef[Manifest]",
    *,
    labels: dict[str, str],
    offences: Mapping[str, Offence],
) -> Dataset:
    """A segment's blocks, in order, one per unit.

    Args:
        stream: The session's clips.
        segment: Which part of them, from 0.
        manifest: Usable videos only.
        labels: Node labels that decoders need; none fit every node.
        offences: What videos did to decoders before.
    """
    units = stream.segment_units(segment)
    # The same for source and decoder, and whole blocks as batches: else Ray would not run both in
    # the decode actor, and units would wait for a core that decoders hold.
    resources = {"num_cpus": 1, "memory": stream.decode_memory_mib * 2**20}
    # Asking for more blocks than there are read tasks would make Ray split up the decoded ones.
    source = ray.data.read_datasource(UnitSource(units), override_num_blocks=1, **resources)
    dataset = source.map_batches(
        DecodeUnits,
        fn_constructor_args=(stream, manifest, offences),
        batch_size=None,
        compute=ActorPoolStrategy(size=min(stream.num_decoders, len(units))),
        **resources,
    )
    context = dataset.context
    context.execution_options = build_execution_options(stream, labels=labels)
    # Ray cuts blocks of 1.5 times this size; a unit must stay whole.
    context.target_max_block_size = stream.block_bytes + BLOCK_MARGIN_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [PacedScheduling]
    return dataset


def build_execution_options(stream: ClipStream, *, labels: dict[str, str]) -> ExecutionOptions:
    """Order kept, decoded blocks bounded, decoders on nodes with these labels (none: on any)."""
    num_blocks = BLOCKS_IN_STORE * (stream.num_decoders + stream.num_workers)
    store_bytes = max(MIN_STORE_BYTES, num_blocks * (stream.block_bytes + BLOCK_MARGIN_BYTES))
    return ExecutionOptions(
        preserve_order=True,
        label_selector=labels or None,
        resource_limits=ExecutionResources.for_limits(object_store_memory=store_bytes),
    )


def check_positions(columns: dict[str, Any], *, expected: range) -> None:
    """Refuse a block that was not dealt to this worker and step.

    Args:
        columns: A block.
        expected: Positions of its clips; the rows after them are blank, position -1.

    Raises:
        RuntimeError: Ray Data delivered other clips than the plan says.
    """
    positions = np.asarray(columns["position"]).tolist()
    if positions != [*expected, *[-1] * (len(positions) - len(expected))]:
        raise RuntimeError(
            f"Ray Data delivered clips {positions} where {list(expected)} were due. Order or split "
            "is not what the plan relies on; please report this with your Ray version."
        )


def _read_unit(unit: int) -> Iterator[pa.Table]:
    yield pa.table({"unit": [unit]})
