"""Decoded held-back and validation videos of one demo world, kept for all runs on it.

For `label_free_selection.py`: 48 runs look at the same views, which are decoded once.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.engine import load_encoders
from lssl_ray.evaluation.features import decode_view, encode_views
from lssl_ray.evaluation.views import EvaluationView
from lssl_ray.evaluation.zero_shot import compute_zero_shot
from lssl_ray.types import ClipFailure
from lssl_ray.video.isolation import DecodeProcess
from lssl_ray.video.manifest import Manifest, load_manifest
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder, FailedClip

BATCH = 40
VIEW_SEED = 0  # as in validation of checkpoints


@dataclass(frozen=True)
class HeldBackPixels:
    """What every run on a world is scored on.

    Attributes:
        views: The recipe's global views of the held-back videos, uint8
            [videos, views, frames, size, size, 3].
        augmentation: Their draws [videos, views, values].
        selection: The same videos as evaluation sees them, uint8 [videos, frames, size, size, 3].
        validation: The validation videos, likewise.
        clip: CLIP's unit-length features of `selection` [videos, embedding].
        category: Unit-length label embeddings.
        description: Unit-length description embeddings, one per label.
        labels: Names that may be predicted.
        truth: The right names of `selection` and `validation`; no label-free score sees them.
        temperature: 1 / CLIP's logit scale.
        clip_top1: CLIP's zero-shot accuracy on validation, percent.
    """

    views: Tensor
    augmentation: Tensor
    selection: Tensor
    validation: Tensor
    clip: Tensor
    category: Tensor
    description: Tensor
    labels: tuple[str, ...]
    truth: dict[str, list[str]]
    temperature: float
    clip_top1: float


def prepare_pixels(config: RunConfig, *, selection: Path, path: Path) -> None:
    """Decode, encode by CLIP, and write the file.

    Args:
        config: The recipe on the world, with its validation manifest.
        selection: Manifest of the held-back videos.
        path: Written whole or not at all.
    """
    torch.set_num_threads(1)
    manifests = {
        "selection": load_manifest(str(selection)).usable(),
        "validation": load_manifest(config.evaluation.manifests["validation"]).usable(),
    }
    clip = build.build_clip(config)
    space = build.build_space(config, clip)
    assert space.descriptions is not None
    encoder = load_encoders(config, clip, {"clip": None}, device=torch.device("cpu"))["clip"]
    frames = {name: _decode_centre(config, one) for name, one in manifests.items()}
    features = {
        name: torch.cat(
            [encode_views(encoder, some, mean=clip.mean, std=clip.std) for some in one.split(BATCH)]
        )
        for name, one in frames.items()
    }
    truth = {
        name: [str(record.label) for record in one.records()] for name, one in manifests.items()
    }
    result = compute_zero_shot(
        features["validation"], space.categories, labels=space.labels, truth=truth["validation"]
    )
    views, augmentation = decode_training_views(config, manifests["selection"])
    logit_scale = clip.model.logit_scale
    assert isinstance(logit_scale, Tensor)
    facts = {
        "labels": list(space.labels),
        "truth": truth,
        "temperature": 1 / float(logit_scale.exp()),
        "clip_top1": 100 * result.top1,
    }
    tensors = {
        "views": views,
        "augmentation": augmentation,
        **frames,
        "clip": features["selection"].clone(),
        "category": space.categories,
        "description": space.descriptions,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".writing")
    save_file(tensors, staging, metadata={"facts": json.dumps(facts)})
    os.replace(staging, path)


def load_pixels(path: Path) -> HeldBackPixels:
    """Read what `prepare_pixels` wrote."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return HeldBackPixels(**tensors, **(facts | {"labels": tuple(facts["labels"])}))


def decode_training_views(config: RunConfig, manifest: Manifest) -> tuple[Tensor, Tensor]:
    """A run's global views of videos, and their draws, which no seed changes."""
    views, augmentation = [], []
    with ClipDecoder(
        manifest,
        recipe=build.build_recipe(config),
        settings=build.build_decode_settings(config),
        seed=VIEW_SEED,
    ) as decoder:
        for number in range(len(manifest)):
            clip = decoder.decode(ClipVisit(position=number, epoch=0, video=number))
            if isinstance(clip, FailedClip):
                raise SystemExit(f"{clip.failure.path} does not decode: {clip.failure.reason}.")
            views.append(torch.from_numpy(clip.global_views))
            augmentation.append(torch.from_numpy(clip.augmentation))
    return torch.stack(views), torch.stack(augmentation)


def _decode_centre(config: RunConfig, manifest: Manifest) -> Tensor:
    view = EvaluationView(num_frames=config.evaluation.num_frames, size=config.views.global_.size)
    settings = build.build_decode_settings(config)
    rows = []
    with DecodeProcess(
        deadline_seconds=settings.deadline_seconds,
        recycle_after=settings.recycle_after,
        short_side=settings.short_side,
        memory_limit_mib=settings.memory_limit_mib,
    ) as process:
        for number in range(len(manifest)):
            frames = decode_view(process, manifest.row(number), view)
            if isinstance(frames, ClipFailure):
                raise SystemExit(f"{frames.path} does not decode: {frames.reason}.")
            rows.append(torch.from_numpy(frames))
    return torch.stack(rows)
