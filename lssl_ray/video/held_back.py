"""Videos that training never sees: chosen by their ids alone.

The choice depends on nothing else, neither on the run's seed nor on the order of the manifest, so
that every run of a comparison is scored on the same videos, and a longer manifest changes few of
them.
"""

import hashlib

import pyarrow as pa

from lssl_ray.errors import DataError
from lssl_ray.video.manifest import Manifest

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
    ids = manifest.table["video_id"].to_pylist()
    keys = [hashlib.sha256(_PURPOSE + video_id.encode()).digest() for video_id in ids]
    chosen = set(sorted(range(len(ids)), key=keys.__getitem__)[:num_held_back])
    mask = pa.array([row in chosen for row in range(len(ids))])
    kept = pa.array([row not in chosen for row in range(len(ids))])
    return _select(manifest, kept), _select(manifest, mask)


def _select(manifest: Manifest, mask: pa.Array) -> Manifest:
    return Manifest(manifest.table.filter(mask).combine_chunks(), root=manifest.root)
