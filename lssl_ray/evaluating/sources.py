"""What `lssl-ray evaluate` evaluates: a run, one of its checkpoints, an export, or plain CLIP.

Each becomes a configuration that workers can build from, the CLIP, and where the adapted weights
are. Unlike `model_sources`, whose models are used in this process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from open_clip.transformer import VisionTransformer

from lssl_ray import build
from lssl_ray.concepts.bank import BANK_PREFIX
from lssl_ray.concepts.space import ConceptSpace
from lssl_ray.config import RunConfig, load_config
from lssl_ray.config.loading import apply_override, validate_config
from lssl_ray.engine import TemporalPart
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.export import is_frame_average
from lssl_ray.folder import RunFolder, find_run_folder, resolve_paths
from lssl_ray.model.clip import LOCAL_PREFIX, ClipModel, load_clip
from lssl_ray.model_sources import (
    CLIP_CONFIG_FILE,
    CLIP_FOLDER,
    CLIP_WEIGHTS_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    TEACHER_FILE,
    TEMPORAL_FILE,
    load_parts,
)
from lssl_ray.run import prepare_space, require_checkpoint
from lssl_ray.storage.runs import fetch_model
from lssl_ray.training.checkpoint import INDEX_FILE, MODEL_FILES, find_damage, load_progress
from lssl_ray.video.remote import has_scheme

RUNS_FOLDER = "runs"
PLAIN_CLIP = "clip"
# What may differ from the run: where things are and what computes, not what is computed.
ALLOWED_OVERRIDES = ("cluster.", "tracking.", "clip.weights=", "data.decode_deadline_seconds=")


@dataclass(frozen=True)
class EvaluatedModel:
    """What is evaluated.

    Attributes:
        title: For people.
        config: With absolute paths.
        clip: The CLIP, both towers.
        space: What training scored concepts with; None for plain CLIP and for an export.
        folder: The run's; None for plain CLIP, an export, and a checkpoint outside its run.
        checkpoint: Holds the adapted weights; None for plain CLIP and for an export.
        step: Of the checkpoint.
        export: An exported folder. Its `clip` is the adapted one: the CLIP that it came from is
            not in it.
        labels: What an export chooses from; None where it has none, and for all others.
    """

    title: str
    config: RunConfig
    clip: ClipModel
    space: ConceptSpace | None
    folder: RunFolder | None
    checkpoint: Path | None
    step: int
    export: Path | None = None
    labels: tuple[str, ...] | None = None

    @property
    def teacher(self) -> Path | None:
        """The adapted weights."""
        return None if self.checkpoint is None else self.checkpoint / TEACHER_FILE

    @property
    def temporal(self) -> TemporalPart | None:
        """An export's weights beside its image tower."""
        return None if self.export is None else TemporalPart(self.export / TEMPORAL_FILE)

    @property
    def patch_size(self) -> int:
        """Pixels per patch side."""
        return int(cast(VisionTransformer, self.clip.visual).patch_size[0])


def open_evaluated_model(
    model: str,
    *,
    manifest: Path,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    weights: str | None = None,
) -> EvaluatedModel:
    """Find out what a model is, and load its CLIP.

    Args:
        model: Folder of a run (or its name below `runs/`), of a checkpoint or of an export; URI of
            a run in a store; `clip` for the CLIP that `config` names; an open_clip name or
            `local-dir:PATH`.
        manifest: What is evaluated, for a configuration that names no videos.
        config: A recipe, with `clip` only.
        overrides: `a.b=value`; for a run or an export only what does not change what is computed.
        weights: Of an open_clip name, or instead of those that a run's configuration names.

    Raises:
        CheckpointError: No such run, or nothing whole in it.
        ConfigError: CLIP can't be loaded, or settings that don't go together.
        DataError: The run's concept space is of another CLIP.
    """
    if config is not None and model != PLAIN_CLIP:
        raise ConfigError(
            f"--config names the CLIP of `{PLAIN_CLIP}`; {model} has its own configuration. Leave "
            "one of them out."
        )
    if model == PLAIN_CLIP:
        if config is None:
            raise ConfigError(
                "`clip` takes its model and weights from --config FILE; without a recipe, give an "
                "open_clip name and --weights FILE."
            )
        changes = list(overrides) + ([] if weights is None else [f"clip.weights={weights}"])
        return _open_configured_clip(resolve_paths(load_config(config, changes)))
    folder = fetch_model(model) if has_scheme(model) else _find_folder(model)
    if folder is None:
        return _open_named_clip(model, manifest=manifest, overrides=overrides, weights=weights)
    if (folder / MODEL_FILE).is_file():
        return _open_export(folder, manifest=manifest, overrides=overrides, weights=weights)
    if (folder / INDEX_FILE).is_file() or (folder / TEACHER_FILE).is_file():
        problem = find_damage(folder, files=MODEL_FILES)
        if problem is not None:
            raise CheckpointError(
                f"Checkpoint {folder} can't be evaluated: {problem}. Name its run, and the newest "
                "whole checkpoint is taken."
            )
        run = find_run_folder(folder)
        is_in_run = (run / CONFIG_FILE).is_file()
        return _open_checkpoint(
            folder, RunFolder(run) if is_in_run else None, overrides=overrides, weights=weights
        )
    if (folder / CONFIG_FILE).is_file():
        run_folder = RunFolder(folder)
        checkpoint = require_checkpoint(run_folder)
        return _open_checkpoint(checkpoint, run_folder, overrides=overrides, weights=weights)
    if (folder / CLIP_CONFIG_FILE).is_file():
        return _open_named_clip(
            f"{LOCAL_PREFIX}{folder}", manifest=manifest, overrides=overrides, weights=weights
        )
    near = sorted(path.parent.name for path in folder.parent.glob(f"*/{CONFIG_FILE}"))
    raise CheckpointError(
        f"No run, no checkpoint and no export at {folder}. Runs there: {', '.join(near) or 'none'}."
    )


def _find_folder(model: str) -> Path | None:
    """The folder that a name means; None for what can only be an open_clip model."""
    if model.startswith(LOCAL_PREFIX):
        return None
    path, named = Path(model).expanduser(), Path(RUNS_FOLDER, model)
    if path.is_dir():
        return path.absolute()
    if named.is_dir():
        return named.absolute()
    if "/" in model:
        raise CheckpointError(f"No run and no checkpoint at {path.absolute()}: no such folder.")
    return None


def _open_checkpoint(
    checkpoint: Path,
    folder: RunFolder | None,
    *,
    overrides: Sequence[str],
    weights: str | None,
) -> EvaluatedModel:
    _check_overrides(overrides)
    step = load_progress(checkpoint).step
    changes = [*overrides, "model.compile=false"]  # pays for itself in training only
    changes += [] if weights is None else [f"clip.weights={weights}"]
    config = resolve_paths(load_config(checkpoint / CONFIG_FILE, changes))
    clip = build.build_clip(config)
    space = (
        build.build_space(config, clip) if folder is None else prepare_space(config, clip, folder)
    )
    return EvaluatedModel(
        title=f"{config.run.name}, step {step}",
        config=config,
        clip=clip,
        space=space,
        folder=folder,
        checkpoint=checkpoint,
        step=step,
    )


def _check_overrides(overrides: Sequence[str]) -> None:
    refused = [item for item in overrides if not item.startswith(ALLOWED_OVERRIDES)]
    if refused:
        raise ConfigError(
            f"{refused} would change what the run computes. With a run, --set takes "
            f"{', '.join(name.rstrip('=') for name in ALLOWED_OVERRIDES)} only."
        )


def _open_export(
    folder: Path, *, manifest: Path, overrides: Sequence[str], weights: str | None
) -> EvaluatedModel:
    """A folder of `lssl-ray export`, as a configuration that builds the same encoder."""
    parts = load_parts(folder, weights=weights)
    _check_overrides(overrides)
    tower = folder / CLIP_FOLDER
    values: dict[str, Any] = {
        "clip": {"model": f"{LOCAL_PREFIX}{tower}", "weights": str(tower / CLIP_WEIGHTS_FILE)},
        "data": {
            "manifest": str(manifest),
            "decode_deadline_seconds": parts.decoding.deadline_seconds,
            "decode_short_side": parts.decoding.short_side,
        },
        # Required of a run; what evaluation chooses from is said by --labels or by the export.
        "concepts": {
            "labels": f"{BANK_PREFIX}kinetics400",
            "spaces": "category",
            "templates": list(parts.templates),
        },
        "model": {"cls": parts.encoder.cls},
        "views": {
            "global": {
                "size": parts.view.size,
                "num_frames": parts.encoder.temporal_embedding.shape[0],
            },
            "local": {"count": 0},
        },
        "evaluation": {"num_frames": parts.view.num_frames},
        "tracking": {"uri": None},
    }
    for override in overrides:
        apply_override(values, override)
    return EvaluatedModel(
        title=f"{parts.name}, exported",
        config=resolve_paths(validate_config(values)),
        clip=parts.load_clip(),
        space=None,
        folder=None,
        checkpoint=None,
        step=0,
        # An export of a plain CLIP is a CLIP.
        export=None if is_frame_average(parts.encoder) else folder,
        labels=parts.labels,
    )


def _open_configured_clip(config: RunConfig) -> EvaluatedModel:
    return EvaluatedModel(
        title=f"CLIP {config.clip.model}, frame-averaged",
        config=config,
        clip=build.build_clip(config),
        space=None,
        folder=None,
        checkpoint=None,
        step=0,
    )


def _open_named_clip(
    name: str, *, manifest: Path, overrides: Sequence[str], weights: str | None
) -> EvaluatedModel:
    clip = load_clip(name, weights=weights)
    size = int(cast(VisionTransformer, clip.visual).image_size[0])
    values: dict[str, Any] = {
        "clip": {"model": name, "weights": weights},
        "data": {"manifest": str(manifest)},
        # Required of a run; what evaluation chooses from is said by --labels.
        "concepts": {"labels": f"{BANK_PREFIX}kinetics400", "spaces": "category"},
        "views": {"global": {"size": size}, "local": {"count": 0}},
        "tracking": {"uri": None},
    }
    for override in overrides:
        apply_override(values, override)
    return EvaluatedModel(
        title=f"CLIP {name}, frame-averaged",
        config=resolve_paths(validate_config(values)),
        clip=clip,
        space=None,
        folder=None,
        checkpoint=None,
        step=0,
    )
