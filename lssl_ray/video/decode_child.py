"""The decode child: a small process that decodes for its parent and may be killed at any moment.

Started by `isolation.DecodeProcess`, never imported by the parent. Requests are JSON lines on
stdin, replies JSON lines on the original stdout; frames go through a shared memory file. No pickle,
no torch, no ray. It holds no state that matters, so the parent ends it with SIGKILL.
"""

import contextlib
import ctypes
import json
import math
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lssl_ray.video.cuts import Crop, Cut, copy_cut, lay_out
from lssl_ray.video.fetching import open_local
from lssl_ray.video.files import ReaderError, first_line
from lssl_ray.video.probing import VideoProbe, open_reader, probe_video
from lssl_ray.video.reader_decord import RefusedWidthError
from lssl_ray.video.reader_torchcodec import import_torchcodec
from lssl_ray.video.readers import (
    ReaderChoice,
    ReaderName,
    ReaderUnavailableError,
    import_decoders,
)

__all__ = ["decode_frames", "main", "serve"]

Decode = Callable[[str, Sequence[int], int | None, ReaderName], npt.NDArray[np.uint8]]
Probe = Callable[[str, ReaderChoice], VideoProbe]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GROWTH_BYTES = 1 << 20
SMALL_PIXELS = 1 << 17  # of a picture: 456x256 is below, 640x360 above


class _SharedFrames:
    """The memory file that carries pixels to the parent. It only grows: a parent may be reading."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._size = 0

    def take(self, shapes: Sequence[Sequence[int]]) -> list[npt.NDArray[np.uint8]]:
        num_bytes = sum(math.prod(shape) for shape in shapes)
        if num_bytes > self._size:
            size = -(-num_bytes // GROWTH_BYTES) * GROWTH_BYTES
            os.ftruncate(self._descriptor, size)
            self._map = mmap.mmap(self._descriptor, size)
            self._size = size
        assert self._map is not None
        return lay_out(self._map, shapes)


def serve(*, decode: Decode, probe: Probe) -> int:
    """Answers requests until the parent closes stdin.

    Reads its command line: the shared memory file's descriptor, the parent's process id, and the
    memory it may take beyond its start, in MiB (0: no limit).

    Args:
        decode: (path, indices, short_side, reader) to frames, uint8 [num_indices, height,
            width, 3].
        probe: (path, reader or "auto") to what is known about the file.

    Returns:
        The exit status, 0.
    """
    descriptor, parent_process_id, memory_limit_mib = (int(word) for word in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent(parent_process_id)
    replies = os.dup(1)
    os.set_blocking(2, False)  # noise that the parent doesn't read is dropped, not waited for
    os.dup2(2, 1)  # a decoder that prints to stdout must not garble a reply
    _limit_memory(memory_limit_mib)
    shared = _SharedFrames(descriptor)
    _send(replies, {"ready": True})
    for line in sys.stdin.buffer:
        _send(replies, _answer(json.loads(line), decode=decode, probe=probe, shared=shared))
    return 0


def decode_frames(
    path: str, indices: Sequence[int], short_side: int | None, reader: ReaderName
) -> npt.NDArray[np.uint8]:
    """Opens a file, decodes frames, closes it; see `VideoReader`.

    Raises:
        ReaderError: The file gives no such frames.
        ReaderUnavailableError: This machine hasn't that reader.
    """
    with contextlib.closing(open_reader(path, reader=reader, short_side=short_side)) as opened:
        return opened.frames(indices)


def main() -> int:
    """Serves with the real decoders."""
    import_decoders()
    return serve(decode=decode_frames, probe=lambda path, reader: probe_video(path, reader=reader))


def _answer(
    request: dict[str, Any], *, decode: Decode, probe: Probe, shared: _SharedFrames
) -> dict[str, Any]:
    try:
        if request["operation"] == "prepare":
            import_torchcodec()
            return {"ready": True}
        with open_local(request["path"]) as path:
            if request["operation"] == "probe":
                return {"probe": vars(probe(path, request["reader"]))}
            frames, reader = _decode_or_fall_back({**request, "path": path}, decode)
        is_cut = _hand_over(frames, request, shared)
        return {"shape": frames.shape, "is_cut": is_cut, "reader": reader}
    except ReaderUnavailableError as error:
        return {"unavailable": str(error)}
    except ReaderError as error:
        return {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return {"reason": "out_of_memory", "detail": "an allocation failed in the decode process"}
    except Exception as error:  # decoders raise anything; the parent counts it against the file
        detail = f"{type(error).__name__}: {first_line(error)}"
        out_of_memory = "Cannot allocate memory" in detail or "bad_alloc" in detail
        return {"reason": "out_of_memory" if out_of_memory else "decode_failed", "detail": detail}


def _decode_or_fall_back(
    request: dict[str, Any], decode: Decode
) -> tuple[npt.NDArray[np.uint8], ReaderName]:
    """Frames and who gave them: PyAV where decord can't give frames of this width."""
    path, indices, short_side = request["path"], request["indices"], request["short_side"]
    try:
        with _staying_on_core() if _is_small(request) else contextlib.nullcontext():
            return decode(path, indices, short_side, request["reader"]), request["reader"]
    except RefusedWidthError:
        return decode(path, indices, short_side, "pyav"), "pyav"


def _is_small(request: dict[str, Any]) -> bool:
    """Whether decord is to give pictures, known to be small, as they are."""
    as_they_are = request["reader"] == "decord" and request["short_side"] is None
    return as_they_are and 0 < math.prod(request.get("size", (0,))) <= SMALL_PIXELS


def _hand_over(
    frames: npt.NDArray[np.uint8], request: dict[str, Any], shared: _SharedFrames
) -> bool:
    """Whether the cuts asked for went, or whole frames.

    These go where no cuts were asked for, where those were planned for pictures of another size,
    and where they overlap so much that they are more bytes.
    """
    cuts = [Cut(np.asarray(indices), Crop(*crop)) for indices, crop in request.get("cuts", ())]
    num_bytes = sum(math.prod(cut.shape) for cut in cuts)
    planned_size = tuple(request.get("size", ()))
    if not cuts or planned_size != frames.shape[1:3] or num_bytes >= frames.nbytes:
        (target,) = shared.take([frames.shape])
        np.copyto(target, frames)
        return False
    numbers = np.asarray(request["indices"])
    for cut, target in zip(cuts, shared.take([cut.shape for cut in cuts]), strict=True):
        copy_cut(frames, numbers, cut, out=target)
    return True


def _send(descriptor: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def _die_with_parent(parent_process_id: int) -> None:
    # End of stdin ends an idle child; this ends one that hangs in native code. The parent starts
    # children from a thread that lives as long as it does: Linux takes the *thread* for the parent.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_process_id:  # it died before the line above
        os._exit(1)


@contextlib.contextmanager
def _staying_on_core() -> Iterator[None]:
    """Keeps this thread, and those that it starts, on the core where it is.

    decord's two threads hand each other every frame. A small one takes less time than waking the
    other core for it; large ones gain from two cores (docs/input_bench.md). Only for a clip: the
    next begins wherever the system wakes this process.
    """
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    _allow_cores({ctypes.CDLL(None).sched_getcpu()})
    try:
        yield
    finally:
        _allow_cores(allowed)


def _allow_cores(cores: set[int]) -> None:
    # Where a sandbox forbids it, has taken these cores away meanwhile or tells no core (-1), the
    # frames are the same.
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            os.sched_setaffinity(0, cores)


def _limit_memory(memory_limit_mib: int) -> None:
    if memory_limit_mib == 0:
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        num_pages = int(file.read().split()[0])
    limit = num_pages * resource.getpagesize() + memory_limit_mib * (1 << 20)
    # Not the hard limit: the reader that imports torch moves this one up by its size.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    sys.exit(main())
