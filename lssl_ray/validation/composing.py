"""From a run's configuration and folder to what evaluates its checkpoints."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from lssl_ray import build
from lssl_ray.concepts.bank import resolve_label
from lssl_ray.concepts.space import ConceptSpace, load_concept_space
from lssl_ray.config import RunConfig, load_config
from lssl_ray.config.evaluation import HELD_BACK_PREFIX
from lssl_ray.errors import ConfigError
from lssl_ray.evaluation.features import decode_views
from lssl_ray.evaluation.label_free import SCORE_NAMES
from lssl_ray.evaluation.report import require_labels
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.holding import HELD_FOLDER, CheckpointHolder
from lssl_ray.types import ClipFailure
from lssl_ray.validation.decoded import (
    VIEWS_FOLDER,
    DecodedVideo,
    DecodedVideos,
    load_or_decode,
)
from lssl_ray.validation.evaluator import (
    Axes,
    CheckpointEvaluator,
    HeldBackVideos,
    LabelledSplit,
)
from lssl_ray.validation.scoring_views import NUM_VIEWS, VIEW_SEED, build_scoring_views
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import Manifest, load_manifest
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder, FailedClip


def build_holder(
    config: RunConfig, run_folder: Path, *, num_videos: int
) -> CheckpointHolder | None:
    """Sets checkpoints aside at the configured steps; None where none is evaluated."""
    every = config.evaluation.every_checkpoints
    if not every:
        return None
    return CheckpointHolder(
        run_folder=run_folder,
        every_steps=every * config.run.checkpoint_every,
        last_step=build.build_loop_settings(config, num_videos=num_videos).stop_at_step,
    )


def require_known_score(config: RunConfig) -> None:
    """Refuse to keep the best checkpoint by a score that there is not.

    Raises:
        ConfigError: `evaluation.best` names an unknown label-free score.
    """
    best = config.evaluation.best or ""
    if best.startswith(HELD_BACK_PREFIX) and best[len(HELD_BACK_PREFIX) :] not in SCORE_NAMES:
        raise ConfigError(
            f"evaluation.best: {best} is no label-free score; known: {', '.join(SCORE_NAMES)}."
        )


def build_evaluator(run_folder: Path) -> tuple[CheckpointEvaluator, tuple[ClipFailure, ...]]:
    """What evaluates a run's checkpoints, and the videos that it leaves out.

    Decodes the videos unless an earlier process of the run did.

    Raises:
        LsslError: CLIP, the concept space or the videos can't be used.
    """
    config = load_config(run_folder / "run_config.yaml", ["model.compile=false"])
    device = torch.device("cuda" if config.evaluation.gpu_share else "cpu")
    clip = build.build_clip(config)
    space = load_concept_space(
        run_folder / "artifacts" / "concept_space.safetensors", clip_digest=clip.digest
    )
    answers = build.build_evaluation_space(config, clip, space)
    splits = {
        name: _load_split(config, run_folder, name, load_manifest(path).usable(), answers)
        for name, path in config.evaluation.manifests.items()
    }
    held_back = _load_held_back(config, run_folder)
    evaluator = CheckpointEvaluator(
        build.build_encoder(config, clip.without_text()).eval().requires_grad_(False).to(device),
        mean=clip.mean,
        std=clip.std,
        axes=Axes(
            labels=answers.labels,
            answers=answers.categories,
            category=space.categories,
            description=space.descriptions,
            link=space.link,
            temperature=_find_temperature(clip),
        ),
        splits=splits,
        held_back=held_back,
    )
    decoded = [split.videos for split in splits.values()]
    decoded += [] if held_back is None else [held_back.views, held_back.centre]
    failures = {one.path: one for videos in decoded for one in videos.failures}
    return evaluator, tuple(failures.values())


def _decode_centre(
    config: RunConfig, run_folder: Path, name: str, manifest: Manifest
) -> DecodedVideos:
    """Videos as evaluation sees them."""
    view = EvaluationView(
        num_frames=config.evaluation.num_frames,
        size=config.evaluation.size or config.views.global_.size,
    )
    settings = build.build_decode_settings(config)
    with DecodeProcess(
        deadline_seconds=settings.deadline_seconds,
        recycle_after=settings.recycle_after,
        short_side=settings.short_side,
        memory_limit_mib=settings.memory_limit_mib,
    ) as process:

        def decode(number: int) -> DecodedVideo | ClipFailure:
            decoded = decode_views(process, manifest.row(number), [view])
            return decoded if isinstance(decoded, ClipFailure) else DecodedVideo(decoded[0])

        return load_or_decode(
            run_folder / HELD_FOLDER / VIEWS_FOLDER,
            name,
            manifest,
            look={"view": view.to_json(), "short_side": settings.short_side},
            shape=(view.num_views, view.num_frames, view.size, view.size, 3),
            decode=decode,
        )


def _decode_scoring_views(
    config: RunConfig, run_folder: Path, name: str, manifest: Manifest
) -> DecodedVideos:
    """Videos as label-free scores see them, drawn alike for every run."""
    views = config.views.global_
    recipe = build_scoring_views(num_frames=views.num_frames, size=views.size)
    settings = build.build_decode_settings(config)
    with ClipDecoder(manifest, recipe=recipe, settings=settings, seed=VIEW_SEED) as decoder:

        def decode(number: int) -> DecodedVideo | ClipFailure:
            clip = decoder.decode(ClipVisit(position=number, epoch=0, video=number))
            if isinstance(clip, FailedClip):
                return replace(clip.failure, position=-1)
            return DecodedVideo(clip.global_views, clip.augmentation)

        return load_or_decode(
            run_folder / HELD_FOLDER / VIEWS_FOLDER,
            name,
            manifest,
            look={"recipe": asdict(recipe), "short_side": settings.short_side},
            shape=(NUM_VIEWS, views.num_frames, views.size, views.size, 3),
            decode=decode,
        )


def _load_split(
    config: RunConfig, run_folder: Path, name: str, manifest: Manifest, answers: ConceptSpace
) -> LabelledSplit:
    videos = _decode_centre(config, run_folder, f"split-{name}", manifest)
    by_id = {record.video_id: record.label for record in manifest.records()}
    labels = require_labels([by_id[video_id] for video_id in videos.video_ids])
    truth = tuple(resolve_label(label, answers.labels) for label in labels)
    return LabelledSplit(videos=videos, truth=truth)


def _load_held_back(config: RunConfig, run_folder: Path) -> HeldBackVideos | None:
    usable = build.load_training_manifest(config).usable()
    _, manifest = split_held_back(usable, num_held_back=config.data.hold_back)
    if not len(manifest):
        return None
    return HeldBackVideos(
        views=_decode_scoring_views(config, run_folder, "held_back-views", manifest),
        centre=_decode_centre(config, run_folder, "held_back-centre", manifest),
    )


def _find_temperature(clip: ClipModel) -> float:
    scale = clip.model.logit_scale
    assert isinstance(scale, Tensor)
    return float((-scale).exp())
