"""Ray Data pipelines: decode in actors on CPU nodes, stream fixed-shape uint8 blocks to workers.

One row of the source is one unit: what one worker trains on in one step. A decode task turns a unit
into one block of exactly `clips_per_worker` rows. With order preserved, `streaming_split` deals
equal blocks to workers in turn, so unit u reaches worker u mod N: order, split and resume follow
from the plan alone (`video/order.py`), and each worker checks the positions it gets.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, Dataset

from lssl_ray.video.manifest import Manifest
from lssl_ray.video.order import RunPlan
from lssl_ray.video.pipeline import ClipDecoder, Columns, DecodeSettings, pack_clips
from lssl_ray.video.views import ViewRecipe


@dataclass(frozen=True)
class ClipStream:
    """The clips of one training session.

    Attributes:
        plan: The whole run's visits.
        start_position: Where the session starts.
        num_steps: Steps of the session.
        num_workers: Training workers.
        clips_per_worker: Rows of a block.
        recipe: Views to cut.
        settings: How videos are opened.
        num_decoders: Decode actors, one core each.
    """

    plan: RunPlan
    start_position: int
    num_steps: int
    num_workers: int
    clips_per_worker: int
    recipe: ViewRecipe
    settings: DecodeSettings
    num_decoders: int

    @property
    def num_units(self) -> int:
        """Worker-steps of the session."""
        return self.num_steps * self.num_workers

    def unit_start(self, unit: int) -> int:
        """Run-wide position of a unit's first clip."""
        return self.start_position + unit * self.clips_per_worker


class DecodeUnits:
    """Ray Data actor: units in, blocks of clips out. A bad video is a row, never an exception."""

    def __init__(self, stream: ClipStream, manifest: "ray.ObjectRef[Manifest]") -> None:
        self._stream = stream
        self._decoder = ClipDecoder(
            ray.get(manifest),
            recipe=stream.recipe,
            settings=stream.settings,
            seed=stream.plan.seed,
        )

    def __call__(self, units: dict[str, np.ndarray]) -> Columns:
        """Decode the one unit of this call."""
        (unit,) = units["id"].tolist()
        start = self._stream.unit_start(unit)
        visits = self._stream.plan.compute_visits(start, start + self._stream.clips_per_worker)
        clips = [self._decoder.decode(visit) for visit in visits]
        return pack_clips(clips, recipe=self._stream.recipe, num_rows=self._stream.clips_per_worker)


def build_clip_dataset(stream: ClipStream, manifest: "ray.ObjectRef[Manifest]") -> Dataset:
    """The session's blocks, in order, one per unit."""
    units = ray.data.range(stream.num_units, override_num_blocks=max(1, stream.num_units))
    return units.map_batches(
        DecodeUnits,
        fn_constructor_args=(stream, manifest),
        batch_size=1,
        compute=ActorPoolStrategy(size=stream.num_decoders),
        num_cpus=1,
    )


def check_positions(columns: dict[str, Any], *, expected_start: int) -> None:
    """Refuse a block that was not dealt to this worker and step.

    Raises:
        RuntimeError: Ray Data delivered other clips than the plan says.
    """
    positions = np.asarray(columns["position"])
    wanted = np.arange(expected_start, expected_start + len(positions))
    wrong = (positions != wanted) & (positions >= 0)
    if wrong.any() or (expected_start >= 0 and positions[0] not in (-1, expected_start)):
        raise RuntimeError(
            f"Ray Data delivered clips {positions.tolist()} where {expected_start}... were due. "
            "Order or split is not what the plan relies on; please report this with your Ray "
            "version."
        )
