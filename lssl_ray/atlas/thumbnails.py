"""Small pictures of clips: four frames of each, cut as the model sees them, within a budget.

Every clip gets the same size and quality, the best at which all of them fit. Files are decoded in
killable child processes; one that gives no frames now is listed, and has no picture.
"""

import base64
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lssl_ray.evaluation.features import decode_view
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.predictions import open_decoder
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import VideoRecord
from lssl_ray.video.recipe import DecodeSettings

NUM_FRAMES = 4
# Height in px and WebP quality, best first.
LEVELS = ((112, 60), (96, 50), (80, 45), (64, 40), (48, 30))
CLIPS_PER_PROCESS = 16  # a decode process takes 0.3 s to start
MAX_PROCESSES = 8
_ADDRESS = "data:image/webp;base64,"

# Told how many of how many are done, and how many of those gave no frames.
OnThumbnails = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of clips.

    Attributes:
        addresses: A data URI per clip; "" where there is none.
        failures: Clips that gave no frames.
        height: Of all pictures, px; each is `NUM_FRAMES` squares wide.
        num_left_out: Clips at the end of the list whose pictures did not fit.
    """

    addresses: tuple[str, ...]
    failures: tuple[ClipFailure, ...]
    height: int
    num_left_out: int

    @property
    def num_bytes(self) -> int:
        """What the pictures take in the page."""
        return sum(map(len, self.addresses))


def draw_thumbnails(
    records: Sequence[VideoRecord],
    *,
    settings: DecodeSettings,
    budget_bytes: int,
    on_progress: OnThumbnails | None = None,
) -> Thumbnails:
    """Pictures of clips, the most important ones first.

    Args:
        records: One per clip.
        settings: How videos are opened.
        budget_bytes: What all pictures may take, as text of the page.
        on_progress: See `OnThumbnails`.
    """
    drawn: list[tuple[str, ...]] = []
    failures: list[ClipFailure] = []
    for number, outcome in enumerate(_draw_all(records, settings), start=1):
        if isinstance(outcome, ClipFailure):
            failures.append(outcome)
        drawn.append(("",) * len(LEVELS) if isinstance(outcome, ClipFailure) else outcome)
        if on_progress is not None:
            on_progress(number, len(records), len(failures))
    totals = [sum(len(sizes[level]) for sizes in drawn) for level in range(len(LEVELS))]
    level = next(
        (level for level, total in enumerate(totals) if total <= budget_bytes), len(LEVELS) - 1
    )
    addresses, left = [], budget_bytes
    for sizes in drawn:
        left -= len(sizes[level])
        addresses.append(sizes[level] if left >= 0 else "")
    num_left_out = sum(bool(d[level]) and not a for d, a in zip(drawn, addresses, strict=True))
    return Thumbnails(tuple(addresses), tuple(failures), LEVELS[level][0], num_left_out)


def encode_strip(
    frames: UInt8[np.ndarray, "frames size size 3"], *, height: int, quality: int
) -> str:
    """Frames side by side as a data URI."""
    strip = Image.fromarray(np.concatenate(list(frames), axis=1))
    strip = strip.resize((height * len(frames), height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    strip.save(file, format="WEBP", quality=quality, method=4)
    return _ADDRESS + base64.b64encode(file.getvalue()).decode()


def _draw_all(
    records: Sequence[VideoRecord], settings: DecodeSettings
) -> Iterator[tuple[str, ...] | ClipFailure]:
    """Each clip at all levels, in order, from several decode processes."""
    wanted = -(-len(records) // CLIPS_PER_PROCESS)
    number = max(1, min(MAX_PROCESSES, os.cpu_count() or 1, wanted))
    with _open_processes(number, settings) as idle, ThreadPoolExecutor(number) as pool:

        def draw(record: VideoRecord) -> tuple[str, ...] | ClipFailure:
            process = idle.get()
            try:
                frames = decode_view(process, record, EvaluationView(NUM_FRAMES, LEVELS[0][0]))
            finally:
                idle.put(process)
            if isinstance(frames, ClipFailure):
                return frames
            return tuple(encode_strip(frames, height=h, quality=q) for h, q in LEVELS)

        yield from pool.map(draw, records)


@contextmanager
def _open_processes(number: int, settings: DecodeSettings) -> Iterator[SimpleQueue[DecodeProcess]]:
    small = replace(settings, short_side=min(settings.short_side, LEVELS[0][0]))
    idle: SimpleQueue[DecodeProcess] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(number):
            idle.put(stack.enter_context(open_decoder(small)))
        yield idle
