"""Weights between CLIP and the adapted teacher: alpha * adapted + (1 - alpha) * CLIP.

CLIP's side is a fresh video encoder built from CLIP: its spatial parameters are CLIP's own, its
temporal ones their initial values, with the temporal output zero, so that it is frame-averaged
CLIP. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022,
https://arxiv.org/abs/2109.01903. Nothing is read or written here, and no model is built.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lssl_ray.errors import CheckpointError, ConfigError


def interpolate_weights(
    clip: Mapping[str, Tensor], adapted: Mapping[str, Tensor], *, alpha: float
) -> dict[str, Tensor]:
    """Weights on the line from CLIP to the adapted encoder.

    Args:
        clip: State dict of a `VideoEncoder` as it comes from CLIP, before any training.
        adapted: State dict of the adapted encoder: the same names, shapes and dtypes.
        alpha: 0 gives CLIP's values bit by bit, 1 the adapted ones; in [0, 1].

    Returns:
        New tensors, computed in float32 at least and given back in the weights' own dtype.

    Raises:
        ConfigError: alpha outside [0, 1].
        CheckpointError: Names, shapes or dtypes differ, or something that can't be interpolated
            (not floating point) differs.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(
            f"alpha={alpha} must lie between 0 (CLIP) and 1 (the adapted weights); beyond them "
            "there is nothing to interpolate."
        )
    _check_matching(clip, adapted)
    if alpha in (0, 1):
        return {name: value.clone() for name, value in (adapted if alpha else clip).items()}
    return {
        name: _mix(value, adapted[name], alpha) if value.is_floating_point() else value.clone()
        for name, value in clip.items()
    }


def _mix(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    dtype = torch.promote_types(first.dtype, torch.float32)
    mixed = alpha * second.to(dtype) + (1 - alpha) * first.to(dtype)
    return mixed.to(first.dtype)


def _check_matching(clip: Mapping[str, Tensor], adapted: Mapping[str, Tensor]) -> None:
    problems = {
        "only in CLIP": [name for name in clip if name not in adapted],
        "only in the adapted weights": [name for name in adapted if name not in clip],
        "of another shape or dtype": [
            f"{name} {tuple(clip[name].shape)} {clip[name].dtype} and "
            f"{tuple(adapted[name].shape)} {adapted[name].dtype}"
            for name in clip
            if name in adapted
            and (clip[name].shape, clip[name].dtype) != (adapted[name].shape, adapted[name].dtype)
        ],
    }
    if not any(problems.values()):
        problems["not floating point and different"] = [
            name
            for name in clip
            if not clip[name].is_floating_point() and not torch.equal(clip[name], adapted[name])
        ]
    if any(problems.values()):
        details = "; ".join(
            f"{len(names)} {problem}: {', '.join(names[:3])}"
            for problem, names in problems.items()
            if names
        )
        raise CheckpointError(
            f"CLIP's weights and the adapted ones can't be interpolated: {details}. Give the "
            "checkpoint of a run and the clip.model that this run started from, with the same "
            "model settings."
        )
