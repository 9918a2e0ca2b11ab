"""A decode child whose clips take random times, and some of whose files kill it for real."""

import os
import random
import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lssl_ray.video.decode_child import serve
from lssl_ray.video.probing import VideoProbe
from lssl_ray.video.readers import ReaderName

LONGEST_SECONDS = 0.05


def delay(
    path: str, indices: Sequence[int], short_side: int | None, reader: ReaderName
) -> npt.NDArray[np.uint8]:
    """Grey frames, late; `.../crash` aborts instead."""
    time.sleep(random.uniform(0.0, LONGEST_SECONDS))
    if path.endswith("crash"):
        os.abort()
    return np.full((len(indices), 16, 16, 3), 7, dtype=np.uint8)


def no_probe(path: str) -> VideoProbe:
    """Nobody probes here."""
    raise NotImplementedError(path)


if __name__ == "__main__":
    sys.exit(serve(decode=delay, probe=no_probe))
