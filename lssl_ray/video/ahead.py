"""Batches brought to the training device in the background, while the step before still runs.

On a GPU the pixels go through pinned memory and a stream of their own, and the step waits for the
copy on the device, not on the CPU. On a CPU there is nothing to copy; the thread still takes the
waiting for blocks and the laying out of rows off the step. Order and values are those of the
source: one thread, first in, first out.
"""

import threading
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from queue import SimpleQueue

import torch

from lssl_ray.types import ClipBatch
from lssl_ray.video.pipeline import Columns, unpack_batch

NUM_AHEAD = 1  # whole batches on the device beside the one in use
CLOSE_SECONDS = 10.0


@dataclass(frozen=True)
class _Arrival:
    """A batch on its way to the device, the end of the source, or what ended it."""

    batch: ClipBatch | None = None
    copied: torch.cuda.Event | None = None
    error: BaseException | None = None


def iterate_on_device(
    blocks: Generator[Columns, None, None], *, device: torch.device, num_ahead: int = NUM_AHEAD
) -> Iterator[ClipBatch]:
    """Unpack blocks to batches on a device, some steps ahead of who takes them.

    Args:
        blocks: What `pack_clips` laid out; read and closed in another thread.
        device: Where to train.
        num_ahead: Batches that may wait.

    Raises:
        BaseException: What the source raised, at the batch where it did.
    """
    arrivals: SimpleQueue[_Arrival] = SimpleQueue()
    room = threading.Semaphore(num_ahead)
    stopped = threading.Event()
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fill() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                columns = next(blocks, None)
                if columns is None:
                    break
                arrivals.put(_bring(columns, device, stream))
        except BaseException as error:  # of any kind: it is raised where the batch is awaited
            arrivals.put(_Arrival(error=error))
        finally:
            blocks.close()
            arrivals.put(_Arrival())

    # A daemon: a source that never answers must not keep a failed worker from ending.
    thread = threading.Thread(target=fill, name="batches-ahead", daemon=True)
    thread.start()
    try:
        while True:
            num_ready = arrivals.qsize()
            arrival = arrivals.get()
            if arrival.error is not None:
                raise arrival.error
            if arrival.batch is None:
                return
            batch = _take(arrival.batch, arrival.copied, device)
            room.release()
            yield replace(batch, feed=replace(batch.feed, batches_ready=num_ready))
    finally:
        stopped.set()
        room.release()
        thread.join(CLOSE_SECONDS)


def _bring(columns: Columns, device: torch.device, stream: torch.cuda.Stream | None) -> _Arrival:
    with torch.cuda.stream(stream) if stream is not None else nullcontext():
        batch = unpack_batch(columns, device=device)
        copied = stream.record_event() if stream is not None else None
    return _Arrival(batch=batch, copied=copied)


def _take(batch: ClipBatch, copied: torch.cuda.Event | None, device: torch.device) -> ClipBatch:
    """Make the step wait for the copy, and the memory for the step, both on the device."""
    if copied is not None:
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in (batch.global_views, batch.local_views, batch.augmentation):
            if tensor is not None:
                # It was allocated on the copying stream, which would hand it out again too early.
                tensor.record_stream(current)
    return batch
