"""Isolation: decoding in a child process that may crash, hang or leak without harming the run.

Native decoders segfault, spin forever while holding the GIL (dmlc/decord#373, #375) and grow. A
`DecodeProcess` owns one child, counts the deadline itself and replaces a child that misbehaves, so
every file ends in frames or in a `DecodeError` with a reason.

Not here: decoding (`readers`, `reader_pyav`, `probing`), the child's pipes and memory (`child`),
what happens to bad files (`pipeline`, `index`).
"""

import logging
import math
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lssl_ray.errors import ConfigError
from lssl_ray.video.child import ChildEndedError, ChildProcess
from lssl_ray.video.cuts import Cut, compute_needed_frames, copy_cut
from lssl_ray.video.decode_errors import DecodeError, DecoderUnavailableError
from lssl_ray.video.files import DecodeReason
from lssl_ray.video.probing import VideoProbe
from lssl_ray.video.readers import ReaderChoice, ReaderName, reduce_size

__all__ = ["DecodeError", "DecodeProcess", "DecodeReason", "DecoderUnavailableError", "VideoProbe"]

logger = logging.getLogger(__name__)

CHILD_MODULE = "lssl_ray.video.decode_child"
CutT = TypeVar("CutT", bound=Cut)
STARTUP_SECONDS = 120.0  # 0.3 s on an idle machine; generous, because running out of it is fatal


class DecodeProcess:
    """Decodes in a child process, within a deadline.

    The child starts with the first request and is replaced after a crash, an expired deadline, want
    of memory and every `recycle_after` requests. A file that finds a used child short of memory is
    tried once more in a fresh one, within its deadline. Use one per thread: calls must not overlap.

    Attributes:
        num_fallbacks: Answers with frames from another reader than the one asked for, because it
            can't give frames of their width.

    Example:
        with DecodeProcess(deadline_seconds=20.0) as process:
            probe = process.probe("clip.mp4")
            frames = process.frames("clip.mp4", [0, 8, 16])  # uint8 [3, height, width, 3]
    """

    def __init__(
        self,
        *,
        deadline_seconds: float,
        recycle_after: int = 500,
        short_side: int | None = None,
        memory_limit_mib: int | None = None,
        child_module: str = CHILD_MODULE,
    ) -> None:
        """Checks the settings; starts nothing yet.

        Args:
            deadline_seconds: Time a request may take, without the child's start.
            recycle_after: Requests after which the child is replaced: bounds leaks.
            short_side: Pixels; larger videos are decoded at this size, aspect kept.
            memory_limit_mib: Memory a child may take beyond its start; None for no limit. A small
                limit ends some decoders in "decoder_crashed" instead of "out_of_memory".
            child_module: Module run as the child; tests put one here whose decoder misbehaves.

        Raises:
            ConfigError: A number is not positive.
        """
        numbers = {
            "deadline_seconds": deadline_seconds,
            "recycle_after": recycle_after,
            "short_side": short_side,
            "memory_limit_mib": memory_limit_mib,
        }
        for name, value in numbers.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value} must be a positive number; omit it for none.")
        self._deadline_seconds = deadline_seconds
        self._recycle_after = recycle_after
        self._short_side = short_side
        self._memory_limit_mib = memory_limit_mib or 0
        self._child_module = child_module
        self.num_fallbacks = 0
        self._prepared: ChildProcess | None = None  # the child that has torchcodec imported
        self._child: ChildProcess | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def probe(self, path: str, *, reader: ReaderChoice = "auto") -> VideoProbe:
        """Reads a file's metadata, finds the reader for it and decodes both its ends or all of it.

        Args:
            path: A local file.
            reader: Who is to decode it, and nobody else; "auto" for whoever can.

        Raises:
            DecodeError: The file is bad, or not for that reader.
            DecoderUnavailableError: No child can be started, or that reader isn't on this machine.
        """
        request = {"operation": "probe", "path": path, "reader": reader}
        return VideoProbe(**self._exchange(request, path)["probe"])

    def frames(
        self,
        path: str,
        indices: Sequence[int],
        *,
        reader: ReaderName = "decord",
    ) -> npt.NDArray[np.uint8]:
        """Decodes whole frames by index.

        Args:
            path: A local file.
            indices: At least one index in [0, num_frames); duplicates allowed, order kept.
            reader: Who decodes: what `probe` chose for this file, and what its frames were
                counted with.

        Returns:
            uint8 [len(indices), height, width, 3], RGB, 0 to 255: a view on memory shared with the
            child, overwritten by the NEXT call. Copy what must live longer.

        Raises:
            DecodeError: The file is bad.
            DecoderUnavailableError: No child can be started, or that reader isn't on this machine.
        """
        child, reply = self._ask_frames(path, indices, reader, short_side=self._short_side)
        return child.pictures([reply["shape"]])[0]

    def cut(
        self,
        path: str,
        plan: Callable[[int, int], Sequence[CutT]],
        *,
        reader: ReaderName,
        size: tuple[int, int],
    ) -> list[tuple[CutT, npt.NDArray[np.uint8]]]:
        """Decodes the frames of some cuts in one pass; of these frames, only the cuts come here.

        Args:
            path: A local file.
            plan: Height and width of the pictures, px, to what to cut from them. What it says for
                another size must need the same frames.
            reader: As for `frames`.
            size: Height and width as indexed, px. A small video is then decoded without looking at
                its first frame for its size; pictures of another size are planned anew.

        Returns:
            The plan, each cut with its pixels: uint8 [frames, height, width, 3], to be copied as
            those of `frames`.

        Raises:
            DecodeError, DecoderUnavailableError: As `frames`.
        """
        planned_size = reduce_size(*size, short_side=self._short_side)
        cuts = plan(*planned_size)
        needed = compute_needed_frames(cuts)
        child, reply = self._ask_frames(
            path,
            needed.tolist(),
            reader,
            short_side=None if planned_size == size else self._short_side,
            size=planned_size,
            cuts=[(cut.frame_indices.tolist(), astuple(cut.crop)) for cut in cuts],
        )
        if reply["is_cut"]:
            pictures = child.pictures([cut.shape for cut in cuts])
            return list(zip(cuts, pictures, strict=True))
        (frames,) = child.pictures([reply["shape"]])
        if frames.shape[1:3] != planned_size:
            cuts = plan(*frames.shape[1:3])
        return [(cut, copy_cut(frames, needed, cut)) for cut in cuts]

    def close(self) -> None:
        """Ends the child. A later call starts a new one."""
        if self._finalizer is not None:
            self._finalizer()
        self._child = self._prepared = None

    def __enter__(self) -> "DecodeProcess":
        """Returns itself; starts nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    def _ask_frames(
        self, path: str, indices: Sequence[int], reader: ReaderName, **options: Any
    ) -> tuple[ChildProcess, dict[str, Any]]:
        indices = [int(index) for index in indices]
        request = {"operation": "frames", "path": path, "indices": indices, "reader": reader}
        reply = self._exchange(request | options, path)
        self._count_fallback(path, asked=reader, used=reply["reader"])
        assert self._child is not None
        return self._child, reply

    def _count_fallback(self, path: str, *, asked: ReaderName, used: ReaderName) -> None:
        if used == asked:
            return
        if self.num_fallbacks == 0:
            logger.warning("%s: %s can't give frames of this width, %s does.", path, asked, used)
        self.num_fallbacks += 1

    def _exchange(self, request: dict[str, Any], path: str) -> dict[str, Any]:
        child = self._send(request)
        used, started = child.num_requests > 1, time.monotonic()
        try:
            return self._receive(child, path, started, self._deadline_seconds)
        except DecodeError as error:
            if error.reason != "out_of_memory":
                raise
            # What files before it leaked is not this file's fault; but no child with little left
            # may serve the next one either.
            self.close()
            left = self._deadline_seconds - error.seconds
            if not used or left <= 0.0:
                raise
        return self._receive(self._send(request), path, started, left)

    def _receive(
        self, child: ChildProcess, path: str, started: float, seconds: float
    ) -> dict[str, Any]:
        try:
            reply = child.receive(time.monotonic() + seconds)
        except TimeoutError:
            self.close()
            detail = f"no answer within {self._deadline_seconds:g} s"
            elapsed = time.monotonic() - started
            raise DecodeError(path, "deadline_exceeded", detail, elapsed) from None
        except ChildEndedError:
            elapsed = time.monotonic() - started
            detail = child.last_words()
            self.close()
            out_of_memory = "bad_alloc" in detail or "Cannot allocate memory" in detail
            reason: DecodeReason = "out_of_memory" if out_of_memory else "decoder_crashed"
            raise DecodeError(path, reason, detail, elapsed) from None
        except BaseException:  # an interrupt: a late reply must not answer the next request
            self.close()
            raise
        if "unavailable" in reply:
            raise DecoderUnavailableError(reply["unavailable"])
        if "reason" in reply:
            elapsed = time.monotonic() - started
            raise DecodeError(path, reply["reason"], reply["detail"], elapsed)
        return reply

    def _send(self, request: dict[str, Any]) -> ChildProcess:
        child = self._living_child()
        try:
            self._prepare(child, request["reader"])
            child.send(request)
        except BrokenPipeError:  # it died idle, which is not this file's fault
            self.close()
            child = self._living_child()
            self._prepare(child, request["reader"])
            child.send(request)
        child.num_requests += 1
        return child

    def _prepare(self, child: ChildProcess, reader: ReaderChoice) -> None:
        """Lets a child import torch, which takes seconds, before a file's deadline counts."""
        if reader != "torchcodec" or child is self._prepared:
            return
        child.send({"operation": "prepare", "reader": reader})
        reply = self._await_ready(child)
        if "unavailable" in reply:
            raise DecoderUnavailableError(reply["unavailable"])
        self._prepared = child

    def _living_child(self) -> ChildProcess:
        child = self._child
        if child is not None and child.alive and child.num_requests < self._recycle_after:
            return child
        self.close()
        try:
            child = ChildProcess(self._child_module, self._memory_limit_mib)
        except OSError as error:  # no more processes, open files or memory
            raise self._explain_unavailable(error.strerror or str(error)) from error
        self._child = child
        self._finalizer = weakref.finalize(self, child.stop)  # also at interpreter exit
        self._await_ready(child)
        return child

    def _await_ready(self, child: ChildProcess) -> dict[str, Any]:
        try:
            return child.receive(time.monotonic() + STARTUP_SECONDS)
        except (TimeoutError, ChildEndedError) as error:
            words = "did not get ready" if isinstance(error, TimeoutError) else child.last_words()
            self.close()
            raise self._explain_unavailable(words) from None
        except BaseException:
            self.close()
            raise

    def _explain_unavailable(self, words: str) -> DecoderUnavailableError:
        return DecoderUnavailableError(
            f"the decode process `{sys.executable} -m {self._child_module}` can't start "
            f"({words}); run it by hand to see why. No video is to blame."
        )
