"""Writing a model out of its run: a self-describing folder, or an image CLIP for open_clip.

::

    OUT/  (folder)
        lssl_model.json                   what the model is: view, labels, prompts, digest, origin
        clip/open_clip_config.json        architecture and pixel statistics
        clip/open_clip_model.safetensors  both towers, the image tower as adapted
        temporal.safetensors              what time added to the image tower
        README.md                         model card

`load_model` reads it back equal to the bit. The format `open_clip` is the folder `clip` alone: an
image CLIP that knows nothing of time, so what the temporal attention learned is lost. The format
`mlflow` wraps the folder; registering is `tracking/mlflow.py`'s.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import open_clip
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor

from lssl_ray.errors import ConfigError
from lssl_ray.inference import VideoModel
from lssl_ray.model.space_time import VideoEncoder, is_temporal
from lssl_ray.model_card import write_model_card
from lssl_ray.model_sources import (
    CLIP_CONFIG_FILE,
    CLIP_FOLDER,
    CLIP_WEIGHTS_FILE,
    MODEL_FILE,
    MODEL_FORMAT,
    MODEL_VERSION,
    TEMPORAL_FILE,
    shorten_clip_name,
    uses_quick_gelu,
)
from lssl_ray.summary import find_versions

LOADER_MODULE = "lssl_ray.serving"
_REQUIREMENTS = ("lssl_ray", "torch", "open_clip_torch", "mlflow")
_IMAGE_PREFIX = "visual."


@dataclass(frozen=True)
class TemporalLoss:
    """What an image CLIP without time loses, on some videos.

    Attributes:
        num_videos: Videos that were compared.
        mean_cosine: Between a video's feature with and without time; 1 is equal.
        min_cosine: The same of the video that changes most.
    """

    num_videos: int
    mean_cosine: float
    min_cosine: float


def export_folder(
    model: VideoModel, out: Path, *, labels: Sequence[str] | None, command: str
) -> None:
    """Write a folder that describes itself and that `load_model` reads back.

    Args:
        model: As `load_model` gave it.
        out: A new folder.
        labels: What `classify` may choose from; None takes what the model was trained with.
        command: For the model card.

    Raises:
        ConfigError: The folder is there and not empty, or the tokenizer can't be exported.
    """
    labels = model.labels if labels is None else labels
    with whole(out) as folder:
        _write_clip(model, folder / CLIP_FOLDER)
        save_file(_collect_weights(model, temporal=True), folder / TEMPORAL_FILE)
        description = _describe(model, labels=labels, command=command)
        _write_json(folder / MODEL_FILE, description)
        write_model_card(model, folder / "README.md", name=out.name, command=command, note=None)


def export_open_clip(
    model: VideoModel,
    out: Path,
    *,
    drop_temporal: bool,
    command: str,
    measure_on: Sequence[str] = (),
) -> TemporalLoss | None:
    """Write an image CLIP that `open_clip.create_model_and_transforms("local-dir:OUT")` loads.

    Args:
        model: As `load_model` gave it.
        out: A new folder.
        drop_temporal: Leave out what time added, where it adds something.
        command: For the model card.
        measure_on: Videos to compare features with and without time on.

    Returns:
        What was measured, if anything.

    Raises:
        ConfigError: Time adds something and `drop_temporal` is not set, or as in `export_folder`.
        DataError: A video to measure on gave no frames.
    """
    exact = is_frame_average(model.parts.encoder)
    if not exact and not drop_temporal:
        raise ConfigError(
            f"{model.name} attends over time, and an image CLIP can't: frame-averaged features of "
            "the export would differ from the model's. Take --format folder to keep all of it, or "
            "--drop-temporal to lose the temporal attention (--measure VIDEO says how much)."
        )
    measured = measure_temporal_loss(model, measure_on) if measure_on else None
    with whole(out) as folder:
        _write_clip(model, folder)
        if exact:
            note = "Averaging normalised frame features gives the model's own features."
        else:
            note = (
                "**The temporal attention is left out.** These are spatial weights that were "
                "trained together with it: frame-averaged features differ from the model's."
            )
        if measured is not None:
            note += (
                f" Cosine between features with and without time on {measured.num_videos} videos: "
                f"mean {measured.mean_cosine:.4f}, lowest {measured.min_cosine:.4f}."
            )
        write_model_card(model, folder / "README.md", name=out.name, command=command, note=note)
    return measured


def export_mlflow(
    model: VideoModel, out: Path, *, labels: Sequence[str] | None, command: str
) -> None:
    """Write an MLflow model around an exported folder, to serve `classify` with.

    Args and errors as in `export_folder`.
    """
    # Read when mlflow is imported. Sent to nobody unless the user says so.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from lssl_ray.tracking.mlflow import save_classifier

    versions = find_versions()
    with whole(out) as folder, TemporaryDirectory(dir=out.parent) as place:
        export_folder(model, Path(place) / "model", labels=labels, command=command)
        save_classifier(
            folder,
            model_folder=Path(place) / "model",
            loader_module=LOADER_MODULE,
            requirements=[f"{name}=={versions[name]}" for name in _REQUIREMENTS],
        )


def is_frame_average(encoder: VideoEncoder) -> bool:
    """Whether an encoder is exactly the average of its image tower's frame features."""
    silent = all(
        not (block.temporal_out.weight.any() or cast(Tensor, block.temporal_out.bias).any())
        for block in encoder.blocks
    )
    return encoder.cls == "per_frame" and silent and not encoder.temporal_embedding.any()


def measure_temporal_loss(model: VideoModel, paths: Sequence[str]) -> TemporalLoss:
    """Compare a model's features with the frame average of its image tower alone.

    Raises:
        DataError: A video gave no frames.
    """
    parts = model.parts
    visual = cast(VisionTransformer, model.clip.visual)
    spatial = VideoEncoder(visual, num_frames=parts.view.num_frames).eval().requires_grad_(False)
    spatial.load_state_dict(_collect_weights(model, temporal=False), strict=False)
    with VideoModel(replace(parts, encoder=spatial), device=model.device) as image_model:
        without = image_model.encode_video(paths).require_all()
    cosines = (model.encode_video(paths).require_all() * without).sum(dim=-1)
    return TemporalLoss(len(cosines), cosines.mean().item(), cosines.min().item())


def _collect_weights(model: VideoModel, *, temporal: bool) -> dict[str, Tensor]:
    """The encoder's weights: what time added, or the rest, which has open_clip's names."""
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.parts.encoder.state_dict().items()
        if is_temporal(name) == temporal
    }


def _write_clip(model: VideoModel, folder: Path) -> None:
    """open_clip's folder of a whole CLIP: its text tower, and the image tower as adapted."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = model.clip
    config = open_clip.get_model_config(clip.name)
    if config["text_cfg"].get("hf_tokenizer_name"):
        raise ConfigError(
            f"{clip.name} has a tokenizer of its own in Hugging Face files, which are not "
            "exported; use the run itself."
        )
    config["quick_gelu"] = uses_quick_gelu(clip.visual)
    preprocess = cast(dict[str, Any], clip.visual.preprocess_cfg)
    pixels = {**preprocess, "mean": clip.mean, "std": clip.std}
    _write_json(folder / CLIP_CONFIG_FILE, {"model_cfg": config, "preprocess_cfg": pixels})
    image = {
        f"{_IMAGE_PREFIX}{name}": tensor
        for name, tensor in _collect_weights(model, temporal=False).items()
    }
    weights = {
        name: image.get(name, tensor).contiguous()
        for name, tensor in clip.model.state_dict().items()
    }
    assert image.keys() <= weights.keys()
    save_file(weights, folder / CLIP_WEIGHTS_FILE)


def _describe(model: VideoModel, *, labels: Sequence[str] | None, command: str) -> dict[str, Any]:
    parts = model.parts
    return {
        "format": MODEL_FORMAT,
        "version": MODEL_VERSION,
        "name": model.name,
        "digest": model.digest,
        "encoder": {
            "cls": parts.encoder.cls,
            "num_frames": parts.encoder.temporal_embedding.shape[0],
            "embedding_dim": parts.encoder.embedding_dim,
        },
        "view": {
            "num_frames": parts.view.num_frames,
            "frames": "evenly over the video, first to last",
            "size": parts.view.size,
            "crop": "largest centred square",
            "resize": "bicubic, antialiased",
            "mean": parts.mean,
            "std": parts.std,
            "decode_short_side": parts.decoding.short_side,
        },
        "decoding": {"deadline_seconds": parts.decoding.deadline_seconds},
        "templates": parts.templates,
        "labels": labels,
        "logit_scale": model.logit_scale,
        "clip": {"name": shorten_clip_name(model.clip.name), "digest": model.clip.digest},
        "command": command,
        "versions": find_versions(),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes `out` once all is written.

    Raises:
        ConfigError: `out` is there and not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; choose another --out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
