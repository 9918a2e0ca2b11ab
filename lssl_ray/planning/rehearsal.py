"""A recipe's videos, model, decoder and training step, built to be measured and counted.

The run's own code throughout; only what decides nothing about time is made up (concept rows).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lssl_ray import build
from lssl_ray.concepts.bank import load_labels
from lssl_ray.concepts.space import ConceptSpace, load_concept_space
from lssl_ray.config import RunConfig
from lssl_ray.errors import DataError
from lssl_ray.model.clip import ImageTower
from lssl_ray.planning.calibration import DecodeCalibration, measure_decoding
from lssl_ray.planning.work import (
    RunWork,
    count_checkpoint_bytes,
    count_clip_bytes,
    count_clip_flops,
    count_parameter_bytes,
)
from lssl_ray.training.context import LocalContext
from lssl_ray.training.step import run_step
from lssl_ray.training.workers import sum_counts
from lssl_ray.types import ClipBatch
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest
from lssl_ray.video.pipeline import ClipDecoder, DecodedClip, pack_clips, unpack_batch

VISITS_AT_A_TIME = 64


def load_videos(config: RunConfig) -> Manifest:
    """The videos that the run trains on.

    Raises:
        DataError: There are none.
    """
    manifest = build.load_training_manifest(config).usable()
    if not len(manifest):
        raise DataError(
            f"{config.data.manifest} lists no usable video; index other folders with `lssl-ray "
            "data index`."
        )
    return split_held_back(manifest, num_held_back=config.data.hold_back)[0]


def draw_space(config: RunConfig, tower: ImageTower) -> ConceptSpace:
    """The space file as it is; for labels random rows, as many: what a step takes is the same."""
    concepts = config.concepts
    if concepts.space is not None:
        return load_concept_space(Path(concepts.space), clip_digest=tower.digest)
    assert concepts.labels is not None  # validated with the configuration
    vocabulary = load_labels(concepts.labels)
    dimension = int(torch.as_tensor(tower.visual.proj).shape[1])

    def draw(num_rows: int) -> Tensor:
        return F.normalize(torch.randn(num_rows, dimension), dim=-1)

    num_labels = len(vocabulary.labels)
    num_texts = sum(len(texts) for texts in vocabulary.descriptions)
    is_full = vocabulary.has_descriptions and concepts.layout == "full"
    descriptions = draw(num_texts if is_full else num_labels)
    return ConceptSpace(
        labels=vocabulary.labels,
        categories=draw(num_labels),
        description_texts=vocabulary.descriptions,
        descriptions=descriptions if vocabulary.has_descriptions else None,
        link=torch.ones(num_labels, num_texts) if is_full else None,
        layout=concepts.layout,
        templates=concepts.templates,
        description_templates=concepts.description_templates,
        clip_name=tower.name,
        clip_digest=tower.digest,
    )


def count_work(config: RunConfig, parts: build.TrainParts, *, num_videos: int) -> RunWork:
    """The run in numbers."""
    recipe, task = build.build_recipe(config), parts.task
    flops = count_clip_flops(task.student, recipe)
    modules = [student for student, _ in task.averaged_pairs().values()]
    weights = sum(count_parameter_bytes(module) for module in modules)
    trained = sum(count_parameter_bytes(module, trained_only=True) for module in modules)
    return RunWork(
        clips_per_step=config.optim.clips_per_step,
        num_steps=build.compute_run_steps(config, num_videos=num_videos),
        num_clips=build.build_plan(config, num_videos=num_videos).num_positions,
        checkpoint_every=config.run.checkpoint_every,
        segment_units=config.cluster.segment_units,
        overlaps=config.optim.micro_batches == 1,
        clip_bytes=count_clip_bytes(recipe),
        clip_flops=flops.total,
        backward_share=flops.backward / flops.total,
        gradient_bytes=trained,
        checkpoint_bytes=count_checkpoint_bytes(weights=weights, trained=trained),
    )


def measure_decoder(
    config: RunConfig, manifest: Manifest, *, budget_seconds: float
) -> DecodeCalibration:
    """The run's own clips in its own order, by one decoder with one thread, as on Ray."""
    torch.set_num_threads(1)
    plan = build.build_plan(config, num_videos=len(manifest))
    # Epoch after epoch, for as long as it takes: few videos are visited again.
    plan = replace(plan, num_positions=max(plan.num_positions, 2**40))
    visits = (
        visit
        for start in range(0, plan.num_positions, VISITS_AT_A_TIME)
        for visit in plan.compute_visits(start, start + VISITS_AT_A_TIME)
    )
    with ClipDecoder(
        manifest,
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        seed=config.run.seed,
    ) as decoder:
        return measure_decoding(decoder, visits, budget_seconds=budget_seconds)


def build_step(
    config: RunConfig,
    parts: build.TrainParts,
    clips: tuple[DecodedClip, ...],
    device: torch.device,
) -> Callable[[int], None]:
    """A function that takes a whole training step on so many clips.

    Rates are zero, so that it may be called any number of times.
    """
    recipe = build.build_recipe(config)
    values = {name: schedule(0) for name, schedule in vars(parts.schedules).items()}
    values |= {"pretrained_rate": 0.0, "temporal_rate": 0.0}
    context = LocalContext(Path(), device=device, append=lambda kind, row: None, num_to_keep=1)
    batches: dict[int, ClipBatch] = {}
    parts.task.train()

    def step(num_clips: int) -> None:
        if num_clips not in batches:
            rows = [clips[number % len(clips)] for number in range(num_clips)]
            columns = pack_clips(rows, recipe=recipe, num_rows=num_clips)
            batches.clear()
            batches[num_clips] = unpack_batch(columns, device=device)
        run_step(
            parts.task,
            parts.optimizer,
            batches[num_clips],
            values,
            encode_student=parts.task.encode_student,
            counts=sum_counts(batches[num_clips], context),
            step=0,
            gradient_clip=config.optim.gradient_clip,
            bf16=config.clip.precision == "bf16",
            micro_batches=config.optim.micro_batches,
            context=context,
        )

    return step
