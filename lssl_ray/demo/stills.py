"""Single pictures of the demo world with captions: what the tiny CLIP learns from.

Apart from `tiny_clip` so that the processes that draw need not import torch. Nothing is encoded:
stills go from the painter to the training as arrays.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lssl_ray.demo.actions import ACTIONS
from lssl_ray.demo.captions import compute_caption
from lssl_ray.demo.conditions import STILL
from lssl_ray.demo.looks import build_look, paint_frame

__all__ = ["HELD_OUT_STREAM", "IMAGE_SIZE", "TRAIN_STREAM", "Stills", "render_stills"]

IMAGE_SIZE = 48
# Streams of random draws, apart from those of the world's splits, which are 0, 1 and 2.
TRAIN_STREAM, HELD_OUT_STREAM = 100, 101
_CHUNK_STILLS = 500


@dataclass(frozen=True)
class Stills:
    """Pictures with captions.

    Attributes:
        pixels: uint8 [num, 48, 48, 3] RGB.
        captions: for each picture the same number of captions.
        actions: int64 [num], indices into `ACTIONS`.
    """

    pixels: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    actions: NDArray[np.int64]


def _render_chunk(
    seed: int, stream: int, start: int, stop: int, num_captions: int, name_share: float
) -> Stills:
    pixels = np.empty((stop - start, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    captions = []
    for index in range(start, stop):
        rng = np.random.default_rng([seed, stream, index])
        action = ACTIONS[index % len(ACTIONS)]
        look = build_look(rng, conditions=STILL, width=IMAGE_SIZE, height=IMAGE_SIZE)
        phase = float(rng.uniform())
        frame = paint_frame(action, look=look, phase=phase, seconds=0.0, rng=rng)
        pixels[index - start] = frame.pixels
        captions.append(
            tuple(
                compute_caption(rng, action=action, frame=frame, look=look, name_share=name_share)
                for _ in range(num_captions)
            )
        )
    actions = np.arange(start, stop, dtype=np.int64) % len(ACTIONS)
    return Stills(pixels=pixels, captions=tuple(captions), actions=actions)


def render_stills(
    num_stills: int,
    *,
    seed: int,
    stream: int = TRAIN_STREAM,
    num_captions: int = 4,
    name_share: float = 0.1,
    num_workers: int = 2,
) -> Stills:
    """Draw single pictures and write their captions, in worker processes.

    Args:
        num_stills: how many, actions taking turns.
        seed: equal seeds give equal stills.
        stream: an independent sequence of random draws; training and held-out stills differ here.
        num_captions: captions per picture.
        name_share: chance that a caption names the action instead of describing what is seen.
        num_workers: processes.
    """
    context = multiprocessing.get_context("spawn")
    starts = range(0, num_stills, _CHUNK_STILLS)
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        futures = [
            pool.submit(
                _render_chunk, seed, stream, start, min(start + _CHUNK_STILLS, num_stills),
                num_captions, name_share,
            )
            for start in starts
        ]  # fmt: skip
        parts = [future.result() for future in futures]
    return Stills(
        pixels=np.concatenate([part.pixels for part in parts]),
        captions=tuple(caption for part in parts for caption in part.captions),
        actions=np.concatenate([part.actions for part in parts]),
    )
