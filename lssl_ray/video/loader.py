"""The run's batches without Ray: decoder threads in this process, in order, a few steps ahead.

For debugging (`--local`) and as the reference that the Ray pipeline is tested against.
"""

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue

import torch

from lssl_ray.types import ClipBatch
from lssl_ray.video.ahead import iterate_on_device
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.offenders import Offence
from lssl_ray.video.order import ClipVisit, RunPlan
from lssl_ray.video.pipeline import ClipDecoder, Columns, blank_columns
from lssl_ray.video.recipe import DecodeSettings, ViewRecipe

STEPS_AHEAD = 2


def iterate_batches(
    manifest: Manifest,
    plan: RunPlan,
    *,
    start_position: int,
    clips_per_step: int,
    recipe: ViewRecipe,
    settings: DecodeSettings,
    num_decoders: int,
    device: torch.device,
    offences: Mapping[str, Offence] | None = None,
) -> Iterator[ClipBatch]:
    """One worker's batches from `start_position` to the end of the run."""
    blocks = _iterate_blocks(
        manifest,
        plan,
        start_position=start_position,
        clips_per_step=clips_per_step,
        recipe=recipe,
        settings=settings,
        num_decoders=num_decoders,
        offences=offences or {},
    )
    yield from iterate_on_device(blocks, device=device)


def _iterate_blocks(
    manifest: Manifest,
    plan: RunPlan,
    *,
    start_position: int,
    clips_per_step: int,
    recipe: ViewRecipe,
    settings: DecodeSettings,
    num_decoders: int,
    offences: Mapping[str, Offence],
) -> Generator[Columns, None, None]:
    with ExitStack() as stack:
        decoders: SimpleQueue[ClipDecoder] = SimpleQueue()
        for _ in range(num_decoders):
            decoder = ClipDecoder(
                manifest, recipe=recipe, settings=settings, seed=plan.seed, offences=offences
            )
            decoders.put(stack.enter_context(decoder))
        pool = stack.enter_context(ThreadPoolExecutor(num_decoders))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)

        def decode(columns: Columns, row: int, visit: ClipVisit) -> None:
            decoder = decoders.get()
            try:
                decoder.decode_into(columns, row, visit)
            finally:
                decoders.put(decoder)

        ahead: deque[tuple[Columns, list[Future[None]]]] = deque()
        for start in range(start_position, plan.num_positions, clips_per_step):
            visits = plan.compute_visits(start, start + clips_per_step)
            columns = blank_columns(recipe, clips_per_step)
            rows = [pool.submit(decode, columns, row, visit) for row, visit in enumerate(visits)]
            ahead.append((columns, rows))
            if len(ahead) > STEPS_AHEAD:
                yield _await_rows(*ahead.popleft())
        while ahead:
            yield _await_rows(*ahead.popleft())


def _await_rows(columns: Columns, rows: list[Future[None]]) -> Columns:
    for row in rows:
        row.result()
    return columns
