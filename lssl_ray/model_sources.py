"""Where a model for use comes from: a run, a checkpoint, an exported folder, or CLIP itself.

Each becomes the same parts. Using them is `inference`'s business, writing a folder `export`'s.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from lssl_ray import build
from lssl_ray.concepts.space import ConceptSpace, load_concept_space
from lssl_ray.config import RunConfig, load_config
from lssl_ray.config.loading import validate_config
from lssl_ray.config.schema import ConceptsSection
from lssl_ray.engine import load_encoders
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.folder import RunFolder, find_run_folder
from lssl_ray.model.clip import LOCAL_PREFIX, ClipModel, compute_weights_digest, load_clip
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.temporal_file import load_temporal
from lssl_ray.storage.runs import fetch_model
from lssl_ray.training.checkpoint import (
    INDEX_FILE,
    MODEL_FILES,
    find_damage,
    find_latest_checkpoint,
    load_progress,
)
from lssl_ray.video.recipe import DecodeSettings
from lssl_ray.video.remote import has_scheme

NUM_FRAMES = 8  # looked at per video where no run says otherwise
DEADLINE_SECONDS, RECYCLE_AFTER, SHORT_SIDE = 30.0, 500, 512

# An exported folder: see export.py.
MODEL_FORMAT, MODEL_VERSION = "lssl_ray.model", 1
MODEL_FILE = "lssl_model.json"
CLIP_FOLDER = "clip"
CLIP_CONFIG_FILE, CLIP_WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
TEMPORAL_FILE = "temporal.safetensors"
TEACHER_FILE, CONFIG_FILE = "teacher.safetensors", "run_config.yaml"


@dataclass(frozen=True)
class ModelParts:
    """What a model for use is made of.

    Attributes:
        name: What it is, for people.
        encoder: On the CPU, in evaluation mode, without gradients.
        mean: Per-channel pixel mean in [0, 1] that the weights want.
        std: Per-channel pixel standard deviation.
        view: How a video is looked at.
        decoding: How videos are opened.
        templates: Prompts that labels are put into.
        labels: What a run was trained with or an export was given; None where nobody said.
        load_clip: Gives the CLIP whose text tower belongs to the encoder.
        run_folder: The run it came from, if it did.
    """

    name: str
    encoder: VideoEncoder
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: EvaluationView
    decoding: DecodeSettings
    templates: tuple[str, ...]
    labels: tuple[str, ...] | None
    load_clip: Callable[[], ClipModel]
    run_folder: Path | None


def load_parts(source: str | Path, *, weights: str | Path | None) -> ModelParts:
    """Find out what a source is, and load it.

    Args:
        source: Folder of a run, of a checkpoint or of an export; URI of a run that is kept in a
            store, or of a checkpoint of it; or a CLIP name as `model.clip.load_clip` takes it.
        weights: The CLIP's weights: a tag or a file for a CLIP name; for a run or checkpoint
            replaces the place that its configuration names.

    Raises:
        CheckpointError: No such folder, or nothing whole in it.
        ConfigError: CLIP can't be loaded, or weights where there is nothing to choose.
    """
    name, weights = str(source), None if weights is None else str(weights)
    folder = fetch_model(name) if has_scheme(name) else Path(name).expanduser()
    if name.startswith(LOCAL_PREFIX) or not folder.is_dir():
        if "/" in name and not name.startswith((LOCAL_PREFIX, "hf-hub:")):
            raise CheckpointError(f"{name}: no such folder. {_KNOWN_SOURCES}")
        return _load_clip_parts(name, weights=weights)
    folder = folder.absolute()
    if (folder / MODEL_FILE).is_file():
        if weights is not None:
            raise ConfigError(f"{folder} holds its own weights; leave out weights={weights!r}.")
        return _load_exported_parts(folder)
    if (folder / INDEX_FILE).is_file() or (folder / TEACHER_FILE).is_file():
        problem = find_damage(folder, files=MODEL_FILES)
        if problem is not None:
            raise CheckpointError(
                f"Checkpoint {folder} can't be used: {problem}. Name its run, and the newest whole "
                "checkpoint is taken."
            )
        return _load_run_parts(folder, weights=weights)
    if (folder / CONFIG_FILE).is_file():
        checkpoint = find_latest_checkpoint(folder, files=MODEL_FILES)
        if checkpoint is None:
            raise CheckpointError(f"{folder} has no whole checkpoint; train it first.")
        return _load_run_parts(checkpoint, weights=weights)
    if (folder / CLIP_CONFIG_FILE).is_file():
        return _load_clip_parts(f"{LOCAL_PREFIX}{folder}", weights=weights)
    raise CheckpointError(f"{folder} holds no model. {_KNOWN_SOURCES}")


_KNOWN_SOURCES = (
    "Give the folder of a run (runs/NAME), its URI (s3://BUCKET/.../NAME), the folder of a "
    "checkpoint (runs/NAME/checkpoints/step_...), of an export (lssl-ray export), of an open_clip "
    "model (local-dir:PATH), or an open_clip name with "
    "weights (ViT-B-16)."
)


def shorten_clip_name(name: str) -> str:
    """An open_clip name as it is, of a local folder its last part."""
    return name.removeprefix(LOCAL_PREFIX).rstrip("/").rpartition("/")[2]


def compute_model_digest(encoder: VideoEncoder) -> str:
    """SHA-256 of all that decides an encoder's features: weights, CLS handling, activation.

    Args:
        encoder: On the CPU.
    """
    parts = [compute_weights_digest(encoder), encoder.cls, uses_quick_gelu(encoder)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def uses_quick_gelu(module: torch.nn.Module) -> bool:
    """Whether the blocks compute with OpenAI's approximation of GELU."""
    return any(isinstance(part, QuickGELU) for part in module.modules())


def read_model_card(folder: Path) -> dict[str, Any]:
    """What an exported folder says of itself.

    Raises:
        CheckpointError: Not readable, or of another version.
    """
    path = folder / MODEL_FILE
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = card["format"], card["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} can't be read: {error!r}. Export the model again."
        ) from error
    if (kind, version) != (MODEL_FORMAT, MODEL_VERSION):
        raise CheckpointError(
            f"{path} is {kind!r} of version {version!r}; this release reads {MODEL_FORMAT!r} of "
            f"version {MODEL_VERSION}. Export the run again with this release."
        )
    return card


def _load_clip_parts(name: str, *, weights: str | None) -> ModelParts:
    clip = load_clip(name, weights=weights)
    visual = cast(VisionTransformer, clip.visual)
    encoder = VideoEncoder(visual, num_frames=NUM_FRAMES).eval().requires_grad_(False)
    return ModelParts(
        name=f"{shorten_clip_name(name)}, frame-averaged",
        encoder=encoder,
        mean=clip.mean,
        std=clip.std,
        view=EvaluationView(num_frames=NUM_FRAMES, size=visual.image_size[0]),
        decoding=DecodeSettings(
            deadline_seconds=DEADLINE_SECONDS, recycle_after=RECYCLE_AFTER, short_side=SHORT_SIDE
        ),
        templates=ConceptsSection.model_fields["templates"].default,
        labels=None,
        load_clip=lambda: clip,
        run_folder=None,
    )


def _load_run_parts(checkpoint: Path, *, weights: str | None) -> ModelParts:
    progress = load_progress(checkpoint)
    config = _read_config(checkpoint / CONFIG_FILE, weights=weights)
    run_folder = find_run_folder(checkpoint)
    space = _find_space(config, RunFolder(run_folder))
    digest = None if space is None else space.clip_digest
    # The text tower is loaded again by who needs it: encoding videos does not.
    tower = _load_checked_clip(config, digest=digest).without_text()
    teacher = {"teacher": checkpoint / TEACHER_FILE}
    encoder = load_encoders(config, tower, teacher, device=torch.device("cpu"))["teacher"]
    return ModelParts(
        name=f"{config.run.name}, step {progress.step}",
        encoder=encoder,
        mean=tower.mean,
        std=tower.std,
        view=EvaluationView(
            num_frames=config.evaluation.num_frames,
            size=config.evaluation.size or config.views.global_.size,
        ),
        decoding=build.build_decode_settings(config),
        templates=config.concepts.templates if space is None else space.templates,
        labels=None if space is None else space.labels,
        load_clip=partial(_load_checked_clip, config, digest=tower.digest),
        run_folder=run_folder,
    )


def _load_exported_parts(folder: Path) -> ModelParts:
    card = read_model_card(folder)
    clip_folder = folder / CLIP_FOLDER
    clip = load_clip(f"{LOCAL_PREFIX}{clip_folder}", weights=str(clip_folder / CLIP_WEIGHTS_FILE))
    try:
        view, decoding = card["view"], card["decoding"]
        encoder = VideoEncoder(
            cast(VisionTransformer, clip.visual),
            num_frames=card["encoder"]["num_frames"],
            cls=card["encoder"]["cls"],
        )
        load_temporal(encoder, folder / TEMPORAL_FILE)
        if compute_model_digest(encoder) != card["digest"]:
            raise CheckpointError(
                f"The weights in {folder} are not those that were exported; export them again."
            )
        return ModelParts(
            name=card["name"],
            encoder=encoder.eval().requires_grad_(False),
            mean=clip.mean,
            std=clip.std,
            view=EvaluationView(num_frames=view["num_frames"], size=view["size"]),
            decoding=DecodeSettings(
                deadline_seconds=decoding["deadline_seconds"],
                recycle_after=RECYCLE_AFTER,
                short_side=view["decode_short_side"],
            ),
            templates=tuple(card["templates"]),
            labels=None if card["labels"] is None else tuple(card["labels"]),
            load_clip=lambda: clip,
            run_folder=None,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / MODEL_FILE} lacks {error}; export the model again."
        ) from error


def _read_config(path: Path, *, weights: str | None) -> RunConfig:
    data = load_config(path).model_dump(mode="json", by_alias=True)
    data["model"]["compile"] = False  # pays for itself in training, not for a few videos
    if weights is not None:
        data["clip"]["weights"] = weights
    return validate_config(data)


def _find_space(config: RunConfig, folder: RunFolder) -> ConceptSpace | None:
    """What the run was trained in; a checkpoint taken out of its run has lost it."""
    if folder.space.is_file():
        return load_concept_space(folder.space)
    if config.concepts.space is not None:
        return load_concept_space(Path(config.concepts.space))
    return None


def _load_checked_clip(config: RunConfig, *, digest: str | None) -> ClipModel:
    clip = build.build_clip(config)
    if digest is not None and clip.digest != digest:
        raise CheckpointError(
            f"{config.run.name} was trained from a CLIP with weights {digest[:12]}, but "
            f"{config.clip.model} with clip.weights={config.clip.weights!r} has "
            f"{clip.digest[:12]}; give the right ones with weights=FILE (--weights FILE)."
        )
    return clip
