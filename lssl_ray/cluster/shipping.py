"""Weight files on their way to workers of machines that don't have them, by Ray's object store.

For runs that are kept in a store: their newest checkpoint is on the driver's machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray

from lssl_ray.engine import EncoderWeights, Interpolated, TemporalPart


@dataclass(frozen=True)
class ShippedWeights:
    """What an encoder's weights are, and the content of their file.

    Attributes:
        source: As on the machine that has the file.
        content: Of the file, uint8 [bytes]; in a tuple it is not fetched before it is asked for.
    """

    source: EncoderWeights
    content: "tuple[ray.ObjectRef[np.ndarray]]"


def ship_weights(weights: Mapping[str, EncoderWeights]) -> dict[str, ShippedWeights | None]:
    """Put the files of named encoders into Ray's object store; CLIP itself has none.

    Raises:
        OSError: One can't be read.
    """
    contents: dict[Path, ray.ObjectRef[np.ndarray]] = {}
    shipped: dict[str, ShippedWeights | None] = {}
    for name, source in weights.items():
        path = _find_path(source)
        if path is None:
            shipped[name] = None
            continue
        if path not in contents:
            contents[path] = ray.put(np.fromfile(path, dtype=np.uint8))
        shipped[name] = ShippedWeights(source, (contents[path],))
    return shipped


def receive_weights(
    shipped: Mapping[str, ShippedWeights | None], folder: Path
) -> dict[str, EncoderWeights]:
    """Write what was shipped to files of this machine.

    Args:
        shipped: By encoder.
        folder: For the files; they are needed until the encoders are loaded.

    Raises:
        OSError: One can't be written.
    """
    weights: dict[str, EncoderWeights] = {}
    for number, (name, parcel) in enumerate(shipped.items()):
        if parcel is None:
            weights[name] = None
            continue
        path = folder / f"{number}.safetensors"
        ray.get(parcel.content[0]).tofile(path)
        source = parcel.source
        if isinstance(source, Interpolated):
            weights[name] = replace(source, adapted=path)
        elif isinstance(source, TemporalPart):
            weights[name] = replace(source, path=path)
        else:
            weights[name] = path
    return weights


def _find_path(source: EncoderWeights) -> Path | None:
    if isinstance(source, Interpolated):
        return source.adapted
    return source.path if isinstance(source, TemporalPart) else source
