"""Label-free scores and true accuracy of one run, for `label_free_selection.py`."""

from pathlib import Path
from typing import Any

import torch
from selection_pixels import BATCH, HeldBackPixels, decode_training_views
from torch import Tensor

from lssl_ray import build
from lssl_ray.concepts.space import load_concept_space
from lssl_ray.config import RunConfig
from lssl_ray.engine import load_encoders
from lssl_ray.evaluation.features import encode_views
from lssl_ray.evaluation.label_free import LabelFreeViews, compute_label_free_scores
from lssl_ray.evaluation.zero_shot import compute_zero_shot
from lssl_ray.folder import RunFolder
from lssl_ray.model.clip import ImageTower
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.training.augment import augment_views
from lssl_ray.training.checkpoint import find_latest_checkpoint
from lssl_ray.video.manifest import load_manifest


@torch.inference_mode()
def score_run(
    config: RunConfig, run_folder: Path, pixels: HeldBackPixels, *, selection: Path
) -> dict[str, Any]:
    """Label-free scores, and accuracies in percent, of a run's last checkpoint.

    Scores on the recipe's views and concept space, the same for all runs, and on the run's own,
    which is what evaluation during training has.
    """
    checkpoint = find_latest_checkpoint(run_folder)
    assert checkpoint is not None
    tower = build.build_image_tower(config)
    encoders = load_encoders(
        config,
        tower,
        {name: checkpoint / f"{name}.safetensors" for name in ("teacher", "student")},
        device=torch.device("cpu"),
    )

    def score(
        views: Tensor,
        augmentation: Tensor,
        *,
        category: Tensor,
        description: Tensor | None,
        link: Tensor | None = None,
    ) -> dict[str, float]:
        seen = {
            name: _encode_augmented(encoder, views, augmentation, tower)
            for name, encoder in encoders.items()
        }
        return compute_label_free_scores(
            LabelFreeViews(**seen, clip=pixels.clip),
            category=category,
            description=description,
            link=link,
            temperature=pixels.temperature,
        )

    own = load_concept_space(RunFolder(run_folder).space, clip_digest=tower.digest)
    own_views = decode_training_views(config, load_manifest(str(selection)).usable())
    scores = score(
        pixels.views,
        pixels.augmentation,
        category=pixels.category,
        description=pixels.description,
    )
    own_scores = score(
        *own_views, category=own.categories, description=own.descriptions, link=own.link
    )
    results = {}
    for part, frames in (("validation", pixels.validation), ("selection", pixels.selection)):
        features = torch.cat(
            [
                encode_views(encoders["teacher"], some, mean=tower.mean, std=tower.std)
                for some in frames.split(BATCH)
            ]
        )
        results[part] = compute_zero_shot(
            features, pixels.category, labels=pixels.labels, truth=pixels.truth[part]
        )
    return {
        "scores": scores,
        "own_scores": own_scores,
        "top1": 100 * results["validation"].top1,
        "selection_top1": 100 * results["selection"].top1,
        "clip_top1": pixels.clip_top1,
        "predictions": list(results["selection"].predictions),
    }


def _encode_augmented(
    encoder: VideoEncoder, views: Tensor, augmentation: Tensor, tower: ImageTower
) -> Tensor:
    """Unit-length features of training-like views [videos, views, embedding]."""
    parts = []
    for some, values in zip(views.split(BATCH), augmentation.split(BATCH), strict=True):
        seen = augment_views(some, values, mean=tower.mean, std=tower.std)
        parts.append(encoder(seen.flatten(0, 1)).unflatten(0, seen.shape[:2]))
    return torch.cat(parts)
