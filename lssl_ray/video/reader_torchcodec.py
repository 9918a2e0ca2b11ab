"""The optional reader: torchcodec, on the FFmpeg libraries that the machine has.

`pip install 'lssl_ray[torchcodec]'` and FFmpeg itself; nothing chooses it but the user
(`lssl-ray data index --reader torchcodec`). Like `readers`, it runs inside the decode child, which
imports torch for it: seconds and memory that the other readers don't cost. Not here: the choice
(`probing`).
"""

import contextlib
import importlib
import importlib.util
import re
import resource
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lssl_ray.video.files import (
    check_file,
    explain_decode_failure,
    explain_open_failure,
    first_line,
)
from lssl_ray.video.readers import (
    ReaderInfo,
    ReaderUnavailableError,
    explain_bad_indices,
    reduce_size,
    restore_order,
    split_indices,
)

__all__ = ["TorchcodecReader", "import_torchcodec"]


def import_torchcodec() -> Any:
    """The package, with its decoders and transforms.

    Raises:
        ReaderUnavailableError: It is not installed, or doesn't fit this torch.
    """
    if importlib.util.find_spec("torchcodec") is None:
        raise ReaderUnavailableError(
            "torchcodec is not installed here; `pip install 'lssl_ray[torchcodec]'`, or index the "
            "videos with `--reader auto`."
        )
    try:
        with _outside_memory_limit():
            importlib.import_module("torchcodec.decoders")
            importlib.import_module("torchcodec.transforms")
            return importlib.import_module("torchcodec")
    except (ImportError, OSError, RuntimeError) as error:
        raise ReaderUnavailableError(
            f"torchcodec can't be imported ({first_line(error)}); install the one that fits this "
            "torch (`pip install 'lssl_ray[torchcodec]'`), or index with `--reader auto`."
        ) from error


@contextlib.contextmanager
def _outside_memory_limit() -> Iterator[None]:
    """Torch's libraries are the program, not the video: a limit on memory moves up by their size.

    They map more address space than most limits leave.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    before = _mapped_bytes()
    try:
        yield
    finally:
        limit = soft + _mapped_bytes() - before
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


class TorchcodecReader:
    """Reads with torchcodec on one CPU thread.

    It reads all packets when it opens a file and orders them by time stamp, so that it knows where
    each frame is; a frame that doesn't decode is an error. Where time stamps are made up (AVI with
    B-frames, MPEG program and transport streams) it returns other frames; `probing` refuses those.
    Reduced frames come bilinear from its own scaler, where the others reduce bicubic.
    """

    def __init__(self, path: str, *, short_side: int | None = None) -> None:
        """Opens a file.

        Args:
            path: A local file.
            short_side: Pixels; a video whose shorter side is larger is reduced to this size, its
                aspect kept. Smaller videos are left alone.

        Raises:
            ReaderError: The file is missing, unreadable, not a video, without frames, or torchcodec
                can't open it.
            ReaderUnavailableError: torchcodec or FFmpeg is not installed.
        """
        check_file(path)
        self._torchcodec = import_torchcodec()
        self._path = path
        transforms = None
        if short_side is not None:
            data = self._open(seek_mode="approximate").metadata  # without the pass over all packets
            full = (int(data.height), int(data.width))
            reduced = reduce_size(*full, short_side=short_side)
            if reduced != full:
                transforms = [self._torchcodec.transforms.Resize(reduced)]
        self._decoder: Any = self._open(seek_mode="exact", transforms=transforms)

    def _open(self, **options: Any) -> Any:
        try:
            return self._torchcodec.decoders.VideoDecoder(
                self._path,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device="cpu",
                **options,
            )
        except (RuntimeError, ValueError, AssertionError) as error:
            if "Could not load libtorchcodec" in str(error):
                raise ReaderUnavailableError(
                    "torchcodec finds no FFmpeg libraries that it can use; install FFmpeg "
                    "(`apt-get install ffmpeg`), or index the videos with `--reader auto`."
                ) from error
            raise explain_open_failure(self._path, _plain(error), reader="torchcodec") from error

    @property
    def info(self) -> ReaderInfo:
        """Size, rate and length; decodes nothing."""
        data = self._decoder.metadata
        fps = float(data.average_fps or 0.0)
        return ReaderInfo(int(data.num_frames), fps, int(data.width), int(data.height))

    def frames(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Decodes frames by index, see `VideoReader.frames`.

        Raises:
            ReaderError: "decode_failed".
        """
        unique, places = split_indices(indices)
        num_frames = int(self._decoder.metadata.num_frames)
        if unique.size == 0 or unique[0] < 0 or unique[-1] >= num_frames:
            raise explain_bad_indices(unique, num_frames)
        try:
            batch = self._decoder.get_frames_at(unique.tolist())
        except (RuntimeError, IndexError) as error:
            raise explain_decode_failure(_plain(error)) from error
        decoded: npt.NDArray[np.uint8] = batch.data.numpy()
        return restore_order(decoded, places)

    def close(self) -> None:
        """Frees the native decoder."""
        self._decoder = None


def _plain(error: Exception) -> Exception:
    """An error without the place in torchcodec's source that it starts with."""
    return RuntimeError(re.sub(r"^\w+, \S+:\d+, ", "", str(error)))
