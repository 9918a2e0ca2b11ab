"""Decoded views on disk: what evaluation looks at is decoded once per run, then only encoded.

::

    RUN/validation/views/NAME.rgb     uint8 [videos, views, frames, size, size, 3], nothing else
    RUN/validation/views/NAME.json    whose pixels they are; written last

On disk and not in memory, so that a validator that died, or a resumed run, finds them; what of
them stays in memory is the operating system's choice.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from lssl_ray.errors import DataError
from lssl_ray.evaluation.cache import compute_videos_digest
from lssl_ray.types import ClipFailure
from lssl_ray.video.manifest import Manifest
from lssl_ray.whole_files import write_whole

VIEWS_FOLDER = "views"


@dataclass(frozen=True)
class DecodedVideo:
    """One video as pixels.

    Attributes:
        frames: RGB in [0, 255].
        augmentation: Per view, see `types.py`; None for views that are looked at as they are.
    """

    frames: UInt8[np.ndarray, "views frames size size 3"]
    augmentation: Float32[np.ndarray, "views values"] | None = None


@dataclass(frozen=True)
class DecodedVideos:
    """Videos as pixels.

    Attributes:
        video_ids: Those that decoded, in manifest order.
        frames: RGB in [0, 255], read from disk as it is looked at.
        augmentation: Of each view; None for views that are looked at as they are.
        failures: Those that did not decode.
    """

    video_ids: tuple[str, ...]
    frames: UInt8[np.ndarray, "videos views frames size size 3"]
    augmentation: Float32[np.ndarray, "videos views values"] | None
    failures: tuple[ClipFailure, ...]


# Takes a row of the manifest.
Decode = Callable[[int], DecodedVideo | ClipFailure]


def load_or_decode(
    folder: Path,
    name: str,
    manifest: Manifest,
    *,
    look: Mapping[str, Any],
    shape: tuple[int, ...],
    decode: Decode,
) -> DecodedVideos:
    """A manifest's videos, decoded unless they were before.

    Args:
        folder: Where pixels are kept.
        name: Of the files.
        manifest: Usable videos only.
        look: What decides the pixels beside the videos; plain data.
        shape: Of one video: views, frames, size, size, 3.
        decode: Decodes one video.

    Raises:
        DataError: None of them decodes, or there is no room for the pixels.
    """
    identity = json.loads(json.dumps({"videos": compute_videos_digest(manifest), "look": look}))
    known = _read_index(folder / f"{name}.json", identity)
    if known is None:
        try:
            known = _decode_all(folder, name, manifest, decode, identity)
        except OSError as error:
            needed = len(manifest) * np.prod(shape) / 2**20
            raise DataError(
                f"{folder}: the decoded videos of {name} ({needed:.0f} MiB) can't be kept "
                f"({error.strerror or error}); make room, or evaluate on fewer videos."
            ) from error
    failures = tuple(ClipFailure(**failure) for failure in known["failures"])
    if not known["video_ids"]:
        raise DataError(
            f"None of the {len(manifest)} videos of {name} could be decoded, the first because of "
            f"{failures[0].reason} ({failures[0].path}). Index them again, or take others."
        )
    augmentation = known["augmentation"]
    return DecodedVideos(
        video_ids=tuple(known["video_ids"]),
        frames=np.memmap(
            folder / f"{name}.rgb",
            dtype=np.uint8,
            mode="r",
            shape=(len(known["video_ids"]), *shape),
        ),
        augmentation=np.asarray(augmentation, dtype=np.float32) if augmentation else None,
        failures=failures,
    )


def _decode_all(
    folder: Path, name: str, manifest: Manifest, decode: Decode, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the pixels, then the index; returns the index."""
    folder.mkdir(parents=True, exist_ok=True)
    index, pixels = folder / f"{name}.json", folder / f"{name}.rgb"
    index.unlink(missing_ok=True)  # no moment when it speaks of other pixels
    ids: list[str] = []
    augmentation: list[Any] = []
    failures: list[ClipFailure] = []
    staging = folder / f".{name}.tmp"
    with staging.open("wb") as file:
        for number, video_id in enumerate(manifest.table["video_id"].to_pylist()):
            decoded = decode(number)
            if isinstance(decoded, ClipFailure):
                failures.append(decoded)
                continue
            ids.append(video_id)
            file.write(np.ascontiguousarray(decoded.frames).data)
            if decoded.augmentation is not None:
                augmentation.append(decoded.augmentation.tolist())
    os.replace(staging, pixels)
    known = {
        **identity,
        "video_ids": ids,
        "augmentation": augmentation,
        "failures": [asdict(failure) for failure in failures],
    }
    write_whole(index, json.dumps(known))
    return known


def _read_index(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = all(known[key] == value for key, value in identity.items())
    return known if same else None
