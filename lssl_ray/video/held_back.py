"""Videos that training never sees: chosen by their ids alone.

The choice depends on nothing else, neither on the run's seed nor on the order of the manifest, so
that every run of a comparison is scored on the same videos, and a longer manifest changes few of
them.
"""

import hashlib
import heapq
import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lssl_ray.errors import DataError
from lssl_ray.video.manifest import ROWS_PER_BATCH, Manifest

_PURPOSE = b"lssl_ray.held_back\x00"


def split_held_back(manifest: Manifest, *, num_held_back: int) -> tuple[Manifest, Manifest]:
    """The videos to train on and those held back, each in manifest order.

    Held back are the videos with the smallest SHA-256 of their ids.

    Args:
        manifest: Usable videos only.
        num_held_back: How many; 0 leaves the manifest as it is.

    Raises:
        DataError: Nothing would be left to train on.
    """
    if not num_held_back:
        return manifest, Manifest(manifest.table.slice(0, 0), root=manifest.root)
    if num_held_back >= len(manifest):
        raise DataError(
            f"data.hold_back={num_held_back} leaves nothing to train on: the manifest of "
            f"{manifest.root} has {len(manifest)} usable videos. Hold fewer back, or index more."
        )
    smallest = heapq.nsmallest(num_held_back, zip(_iterate_keys(manifest), itertools.count()))
    chosen = np.zeros(len(manifest), dtype=bool)
    chosen[[row for _, row in smallest]] = True
    return _select(manifest, pa.array(~chosen)), _select(manifest, pa.array(chosen))


def _iterate_keys(manifest: Manifest) -> Iterator[bytes]:
    """Each row's SHA-256; ids are Python objects a few thousand at a time."""
    for batch in manifest.table.select(["video_id"]).to_batches(max_chunksize=ROWS_PER_BATCH):
        for video_id in batch.column(0).to_pylist():
            yield hashlib.sha256(_PURPOSE + video_id.encode()).digest()


def _select(manifest: Manifest, mask: pa.Array) -> Manifest:
    return Manifest(manifest.table.filter(mask).combine_chunks(), root=manifest.root)
