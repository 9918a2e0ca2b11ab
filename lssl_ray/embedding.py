"""Embedding a manifest's videos into a folder that a second run goes on with.

Who computes the rows, this process or Ray (`cluster/embedding.py`), is the caller's choice; what
the folder looks like is in `embedding_files`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from lssl_ray.embedding_files import (
    EmbeddedVideo,
    EmbeddingSource,
    PartWriter,
    check_known,
    drop_bad_rows,
    file_provenance,
    load_known,
    locked,
)
from lssl_ray.evaluation.features import decode_view
from lssl_ray.inference import VideoModel
from lssl_ray.predictions import open_decoder
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest

ROWS_PER_PART = 256


@dataclass(frozen=True)
class EmbedReport:
    """What a run did.

    Attributes:
        num_videos: Rows of the manifest.
        num_known: Rows that were there before.
        num_embedded: New rows with an embedding.
        bad_by_reason: New rows without, by reason.
        seconds: Wall time.
    """

    num_videos: int
    num_known: int
    num_embedded: int
    bad_by_reason: Mapping[str, int]
    seconds: float


def describe_source(model: VideoModel, *, source: str, weights: str | None) -> EmbeddingSource:
    """What `model` makes embeddings with, as plain values."""
    return EmbeddingSource(
        name=model.name,
        source=source,
        weights=weights,
        digest=model.digest,
        num_frames=model.parts.view.num_frames,
        size=model.parts.view.size,
        decode_short_side=model.parts.decoding.short_side,
        embedding_dim=model.parts.encoder.embedding_dim,
    )


def embed_manifest(
    manifest: Manifest,
    out: Path,
    *,
    manifest_path: str,
    source: EmbeddingSource,
    encode: Callable[[Manifest], Iterator[EmbeddedVideo]],
    rows_per_part: int = ROWS_PER_PART,
    retry_bad: bool = False,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> EmbedReport:
    """Embed the videos of a manifest that the folder does not have yet.

    Args:
        manifest: Usable and bad videos; bad ones become rows with the index's reason.
        out: The folder; made when absent.
        manifest_path: Where the manifest is, for the provenance.
        source: What `encode` computes with.
        encode: Yields a row for each video that it is given, in any order.
        rows_per_part: Rows of a file; a killed run loses fewer than this.
        retry_bad: Try again the videos that gave no frames before.
        on_progress: Told (done, all, bad) row by row.

    Raises:
        DataError: The folder belongs to another model or manifest, is in use, or is damaged.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if retry_bad:
            drop_bad_rows(out)
        known = load_known(out)
        check_known(known, manifest, out)
        file_provenance(out, manifest, manifest_path=manifest_path, source=source)
        ids = manifest.table["video_id"]
        missing = manifest.table.filter(pc.invert(pc.is_in(ids, value_set=known["video_id"])))
        bad: Counter[str] = Counter()
        num_done = known.num_rows
        with PartWriter(out, rows_per_part=rows_per_part) as writer:
            for row in _iterate_rows(Manifest(missing, manifest.root), encode):
                writer.add(row)
                bad.update([row.reason] if row.reason else [])
                num_done += 1
                if on_progress is not None:
                    on_progress(num_done, len(manifest), sum(bad.values()))
    return EmbedReport(
        num_videos=len(manifest),
        num_known=known.num_rows,
        num_embedded=num_done - known.num_rows - sum(bad.values()),
        bad_by_reason=dict(sorted(bad.items())),
        seconds=time.monotonic() - started,
    )


def embed_locally(model: VideoModel, manifest: Manifest) -> Iterator[EmbeddedVideo]:
    """Rows of usable videos, computed in this process."""
    with open_decoder(model.parts.decoding) as process:
        for record in manifest.records():
            frames = decode_view(process, record, model.parts.view)
            if isinstance(frames, ClipFailure):
                yield EmbeddedVideo(record, None, frames.reason, frames.detail)
            else:
                features = model.encode_frames(frames[None])[0].cpu().numpy()
                yield EmbeddedVideo(record, features, None, None)


def _iterate_rows(
    manifest: Manifest, encode: Callable[[Manifest], Iterator[EmbeddedVideo]]
) -> Iterator[EmbeddedVideo]:
    bad = manifest.table.filter(pc.not_equal(manifest.table["status"], "ok"))
    for record in Manifest(bad, manifest.root).records():
        yield EmbeddedVideo(record, None, record.reason, record.detail)
    usable = manifest.usable()
    if len(usable):
        yield from encode(usable)
