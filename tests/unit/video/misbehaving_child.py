"""A decode child with the real serving loop and a decoder that does what its file's name says."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lssl_ray.video.decode_child import serve
from lssl_ray.video.probing import VideoProbe
from lssl_ray.video.readers import ReaderChoice, ReaderName

LEAKED: list[npt.NDArray[np.uint8]] = []


def misbehave(
    path: str, indices: Sequence[int], short_side: int | None, reader: ReaderName
) -> npt.NDArray[np.uint8]:
    """Frames whose bytes hold this process's id, unless the name asks for trouble."""
    if path == "segfault":
        ctypes.string_at(0)
    elif path == "abort":
        os.abort()
    elif path == "exit":
        os.write(2, b"a first line\ncan't go on\n")
        os._exit(3)
    elif path == "exit-zero":
        os._exit(0)
    elif path == "hang":  # PyDLL keeps the GIL: no Python thread or signal handler runs any more
        ctypes.PyDLL(None).pause()
    elif path == "memory":
        return np.ones((1, 1 << 15, 1 << 15, 3), dtype=np.uint8)
    elif path == "native-memory":
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()
    elif path == "noise":
        for _ in range(2000):
            for descriptor in (1, 2):
                with contextlib.suppress(BlockingIOError):
                    os.write(descriptor, b"[h264 @ 0x55] error while decoding MB " * 20 + b"\n")
    elif path == "leak":
        LEAKED.append(np.ones(8 << 20, dtype=np.uint8))
    elif path == "raise":
        raise KeyError("a decoder's\nown error")
    elif path == "cores":  # how many this thread may run on
        cores = min(len(os.sched_getaffinity(0)), 255)
        return np.full((len(indices), 2, 2, 3), cores, dtype=np.uint8)
    elif path == "large":
        return np.full((len(indices), 500, 700, 3), 7, dtype=np.uint8)
    number = np.frombuffer(os.getpid().to_bytes(12, "little"), dtype=np.uint8)
    return np.broadcast_to(number.reshape(1, 2, 2, 3), (len(indices), 2, 2, 3))


def misbehaving_probe(path: str, reader: ReaderChoice) -> VideoProbe:
    """The same, for probes."""
    misbehave(path, [0], None, "decord")
    return VideoProbe(1, 1.0, 1.0, 2, 2, "none", 0, "decord", None)


if __name__ == "__main__":
    sys.exit(serve(decode=misbehave, probe=misbehaving_probe))
