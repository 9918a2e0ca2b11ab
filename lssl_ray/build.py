"""Composition root: the only place where a configuration becomes objects.

Everything below takes values. Nothing here trains, decodes or talks to Ray or MLflow.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from open_clip.transformer import VisionTransformer

from lssl_ray.concepts.bank import load_labels
from lssl_ray.concepts.space import ConceptSpace, build_concept_space, load_concept_space
from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.config import RunConfig, dump_config
from lssl_ray.config.cluster import DECODER_START_MIB
from lssl_ray.config.objective import TemperatureSchedule, WeightSchedule
from lssl_ray.config.schema import GlobalViewsSection, LocalViewsSection
from lssl_ray.errors import ConfigError
from lssl_ray.model.clip import ClipModel, ImageTower, load_clip
from lssl_ray.model.freezing import freeze_encoder
from lssl_ray.model.prototype_head import PrototypeHead
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.teacher import build_teacher
from lssl_ray.training.health import CollapseRule
from lssl_ray.training.loop import LoopSettings, Schedules
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.training.schedules import Schedule, constant, cosine, linear
from lssl_ray.training.task import LssTask
from lssl_ray.video.manifest import Manifest, load_manifest
from lssl_ray.video.order import RunPlan, compute_num_steps
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

RATE_CLIPS = 256  # configured learning rates are per this many clips


@dataclass(frozen=True)
class TrainParts:
    """What a worker trains with."""

    task: LssTask
    optimizer: torch.optim.AdamW
    schedules: Schedules


def build_clip(config: RunConfig) -> ClipModel:
    """The image CLIP that the run adapts."""
    clip = load_clip(config.clip.model, weights=config.clip.weights)
    patch = cast(VisionTransformer, clip.visual).patch_size[0]
    views = config.views
    sizes = {"views.global.size": views.global_.size}
    if views.local.count:
        sizes["views.local.size"] = views.local.size
    if config.evaluation.size is not None:
        sizes["evaluation.size"] = config.evaluation.size
    wrong = [f"{key}={size}" for key, size in sizes.items() if size % patch]
    if wrong:
        raise ConfigError(
            f"{', '.join(wrong)}: {config.clip.model} has patches of {patch} px; choose multiples."
        )
    return clip


def build_space(config: RunConfig, clip: ClipModel) -> ConceptSpace:
    """The configured concept space: a space file as it is, or built from labels.

    Raises:
        ConfigError: The run needs descriptions and there are none.
        DataError: A label or space file that is none, or a space of another CLIP.
    """
    concepts = config.concepts
    if concepts.space is not None:
        space = load_concept_space(Path(concepts.space), clip_digest=clip.digest)
        require_descriptions(config, has_descriptions=space.descriptions is not None)
        return space
    assert concepts.labels is not None  # validated with the configuration
    vocabulary = load_labels(concepts.labels)
    require_descriptions(config, has_descriptions=vocabulary.has_descriptions)
    return build_label_space(config, clip, vocabulary)


def build_evaluation_space(config: RunConfig, clip: ClipModel, space: ConceptSpace) -> ConceptSpace:
    """The labels that evaluation chooses from: the training's own, or `evaluation.labels`."""
    if config.evaluation.labels is None:
        return space
    return build_concept_space(
        load_labels(config.evaluation.labels),
        clip,
        layout=space.layout,
        templates=space.templates,
        description_templates=space.description_templates,
    )


def build_label_space(config: RunConfig, clip: ClipModel, vocabulary: Vocabulary) -> ConceptSpace:
    """A concept space of any labels, with the configured prompts."""
    return build_concept_space(
        vocabulary,
        clip,
        layout=config.concepts.layout,
        templates=config.concepts.templates,
        description_templates=config.concepts.description_templates,
    )


def build_image_tower(config: RunConfig) -> ImageTower:
    """The image tower of the CLIP that the run adapts, without the memory of the text tower."""
    return build_clip(config).without_text()


def build_encoder(config: RunConfig, tower: ImageTower) -> VideoEncoder:
    """CLIP continued in time, before any training; frozen and compiled as configured."""
    model = config.model
    encoder = VideoEncoder(
        cast(VisionTransformer, tower.visual),
        num_frames=config.views.global_.num_frames,
        cls=model.cls,
        temporal_init=model.temporal_init,
        activation_checkpointing=model.activation_checkpointing,
    )
    freeze_encoder(encoder, spatial=model.freeze_spatial, num_blocks=model.freeze_blocks)
    if model.compile:
        encoder.compile()
    return encoder


def build_train_parts(
    config: RunConfig,
    tower: ImageTower,
    space: ConceptSpace,
    *,
    num_videos: int,
    device: torch.device,
) -> TrainParts:
    """Student, teacher, objectives, optimiser and schedules on the training device."""
    objective = config.objective
    student = build_encoder(config, tower)
    teacher = build_teacher(student)
    if config.model.compile:
        teacher.compile()  # copies are made without it
    task = LssTask(
        student,
        teacher,
        categories=space.categories,
        descriptions=space.descriptions,
        link=space.link,
        spaces=config.concepts.spaces,
        head=build_head(config, student),
        prior_running_mean=objective.prior_running_mean,
        centering_momentum=objective.centering_momentum,
        mean=tower.mean,
        std=tower.std,
    ).to(device)
    return TrainParts(
        task=task,
        optimizer=build_optimizer(task.student, head=task.student_head, betas=config.optim.betas),
        schedules=build_schedules(config, num_videos=num_videos),
    )


def build_head(config: RunConfig, student: VideoEncoder) -> PrototypeHead | None:
    """The student's head of a run with prototypes, random by the run's seed."""
    objective = config.objective
    if objective.space == "concepts":
        return None
    return PrototypeHead(
        student.embedding_dim,
        hidden=objective.head_width,
        num_prototypes=objective.num_prototypes,
    )


def build_schedules(config: RunConfig, *, num_videos: int) -> Schedules:
    """All schedules over the steps of the whole run."""
    optim, objective = config.optim, config.objective
    num_steps = compute_run_steps(config, num_videos=num_videos)
    warmup_steps = min(num_steps - 1, int(optim.warmup_share * num_steps))
    scale = optim.clips_per_step / RATE_CLIPS
    rate, final_rate = optim.learning_rate * scale, optim.final_learning_rate * scale
    factor = optim.temporal_rate_factor
    lengths = {"num_steps": num_steps, "warmup_steps": warmup_steps}
    return Schedules(
        pretrained_rate=cosine(rate, final_rate, **lengths),
        temporal_rate=cosine(rate * factor, final_rate * factor, **lengths),
        weight_decay=cosine(*optim.weight_decay, num_steps=num_steps),
        momentum=cosine(*optim.teacher_momentum, num_steps=num_steps),
        student_temperature=_build_schedule(objective.student_temperature, num_steps),
        teacher_temperature=_build_schedule(objective.teacher_temperature, num_steps),
        weight_distill_category=_build_schedule(objective.weight_distill_category, num_steps),
        weight_distill_description=_build_schedule(objective.weight_distill_description, num_steps),
        weight_align=_build_schedule(objective.weight_align, num_steps),
        weight_prior=_build_schedule(objective.weight_prior, num_steps),
    )


def build_plan(config: RunConfig, *, num_videos: int) -> RunPlan:
    """Which clips the run visits: the epochs, or as many steps as `optim.max_steps` allows."""
    num_positions = config.optim.epochs * num_videos
    if config.optim.max_steps is not None:
        num_positions = min(num_positions, config.optim.max_steps * config.optim.clips_per_step)
    return RunPlan(num_videos=num_videos, num_positions=num_positions, seed=config.run.seed)


def compute_run_steps(config: RunConfig, *, num_videos: int) -> int:
    """Steps of the whole run."""
    plan = build_plan(config, num_videos=num_videos)
    return compute_num_steps(plan.num_positions, global_batch=config.optim.clips_per_step)


def build_loop_settings(config: RunConfig, *, num_videos: int) -> LoopSettings:
    """Lengths, limits and cadence of the training loop."""
    num_steps = compute_run_steps(config, num_videos=num_videos)
    return LoopSettings(
        num_steps=num_steps,
        stop_at_step=min(num_steps, config.run.stop_at_step or num_steps),
        positions_per_step=config.optim.clips_per_step,
        num_positions=build_plan(config, num_videos=num_videos).num_positions,
        gradient_clip=config.optim.gradient_clip,
        log_every=config.run.log_every,
        checkpoint_every=config.run.checkpoint_every,
        max_bad_fraction=config.data.max_bad_fraction,
        precision=config.clip.precision,
        micro_batches=config.optim.micro_batches,
        collapse=CollapseRule(
            action=config.health.collapse,
            entropy_threshold=config.health.entropy_threshold,
            windows=config.health.windows,
        ),
        run_config=dump_config(config),
        num_decoders=config.cluster.num_decoders,
    )


def build_recipe(config: RunConfig) -> ViewRecipe:
    """The views of a clip."""
    views = config.views
    return ViewRecipe(
        global_views=_build_kind(views.global_),
        local_views=_build_kind(views.local),
        window_seconds=views.window_seconds,
        flip_probability=views.flip_probability,
        jitter_probability=views.jitter_probability,
        jitter_strength=views.jitter_strength,
        grey_probability=views.grey_probability,
    )


def load_training_manifest(config: RunConfig) -> Manifest:
    """The manifest's rows that the run is about, good and bad ones.

    Raises:
        DataError: No manifest, or no video in `data.split`.
    """
    manifest = load_manifest(config.data.manifest)
    split = config.data.split
    return manifest if split is None else manifest.where(split=split)


def build_decode_settings(config: RunConfig) -> DecodeSettings:
    """How videos are opened."""
    data = config.data
    return DecodeSettings(
        deadline_seconds=data.decode_deadline_seconds,
        recycle_after=data.recycle_decoder_after,
        short_side=data.decode_short_side,
        memory_limit_mib=config.cluster.decode_memory_mib - DECODER_START_MIB,
    )


def _build_schedule(
    setting: float | WeightSchedule | TemperatureSchedule, num_steps: int
) -> Schedule:
    if isinstance(setting, float | int):
        return constant(setting)
    shape = {"linear": linear, "cosine": cosine}[setting.shape]
    return shape(setting.start, setting.end, num_steps=max(1, round(setting.until * num_steps)))


def require_descriptions(config: RunConfig, *, has_descriptions: bool) -> None:
    """Refuse labels without descriptions where the objectives act on these."""
    concepts = config.concepts
    if concepts.spaces != "category" and not has_descriptions:
        key = "labels" if concepts.space is None else "space"
        raise ConfigError(
            f"concepts.{key}={getattr(concepts, key)!r} has no descriptions, but concepts.spaces="
            f"{concepts.spaces} needs them. Describe the labels in the file, or train on names "
            "alone with --set concepts.spaces=category."
        )


def _build_kind(section: GlobalViewsSection | LocalViewsSection) -> ViewKind:
    return ViewKind(
        count=section.count,
        num_frames=section.num_frames,
        size=section.size,
        area=section.area,
        window_share=section.window_share,
    )
