"""Small real things for tests: a random CLIP, videos with known content, a whole run's inputs.

Imported as `tiny` (pytest puts this folder on the path); the same things come as fixtures from
`conftest.py`.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from open_clip.model import CLIP
from rich.console import Console
from safetensors.torch import save_file

from lssl_ray import commands
from lssl_ray.config import RunConfig
from lssl_ray.config.loading import apply_override, validate_config
from lssl_ray.display import RunDisplay
from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import save_manifest

IMAGE_SIZE, PATCH_SIZE, WIDTH, EMBEDDING = 32, 8, 32, 16
ACTIONS = ("brightening", "darkening", "moving left", "moving right")
VIDEO_WIDTH, VIDEO_HEIGHT, NUM_FRAMES, FPS = 96, 64, 16, 8


def build_tiny_clip_config(*, quick_gelu: bool = False) -> dict[str, Any]:
    """open_clip's model config of the smallest CLIP that its tokenizer can feed."""
    return {
        "embed_dim": EMBEDDING,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "layers": 2,
            "width": WIDTH,
            "head_width": 16,
            "patch_size": PATCH_SIZE,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }


def write_tiny_clip(
    folder: Path, *, quick_gelu: bool = False, seed: int = 0, vision: dict[str, Any] | None = None
) -> Path:
    """Write a random CLIP as open_clip's local folder; load it as `local-dir:FOLDER`.

    `vision` changes the image tower's settings.

    Every weight is moved away from its initial value, biases and norms included: a module that
    forgets one of them can't pass for another.
    """
    config = build_tiny_clip_config(quick_gelu=quick_gelu)
    config["vision_cfg"] |= vision or {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(**config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def paint_frames(label: str, *, num_frames: int = NUM_FRAMES, seed: int = 0) -> NDArray[np.uint8]:
    """One of `ACTIONS` as a moving picture: uint8 [frames, 64, 96, 3] RGB; pure."""
    rng = np.random.default_rng([seed, ACTIONS.index(label)])
    backdrop = rng.integers(40, 90, size=3)
    square = rng.integers(120, 255, size=3)
    frames = np.empty((num_frames, VIDEO_HEIGHT, VIDEO_WIDTH, 3), dtype=np.uint8)
    for index in range(num_frames):
        share = index / max(1, num_frames - 1)
        level = {"brightening": 0.4 + share, "darkening": 1.4 - share}.get(label, 1.0)
        frames[index] = np.clip(backdrop * level, 0, 255)
        left = round((VIDEO_WIDTH - 24) * (1 - share if label == "moving left" else share))
        if label.startswith("moving"):
            frames[index, 20:44, left : left + 24] = square
    return frames


def write_video(
    path: Path, frames: NDArray[np.uint8], *, fps: int = FPS, codec: str = "libx264"
) -> Path:
    """Encode RGB frames uint8 [frames, height, width, 3], even sizes, at high quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        if codec == "libx264":
            stream.options = {"crf": "10", "preset": "ultrafast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def truncate_video(path: Path) -> Path:
    """Cut a video in half: an MP4 without its index, which no decoder opens."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@dataclass(frozen=True)
class VideoSet:
    """Eight videos, two of each of `ACTIONS`, and the files that describe them."""

    folder: Path
    manifest: Path
    labels: Path

    @property
    def paths(self) -> list[Path]:
        """The videos, in manifest order."""
        return sorted(self.folder.glob("*/*.mp4"))


def write_video_set(folder: Path, *, videos_per_label: int = 2) -> VideoSet:
    """Write videos into one folder per label, index them, and write a label file."""
    videos = folder / "videos"
    for label in ACTIONS:
        for number in range(videos_per_label):
            write_video(videos / label / f"{number}.mp4", paint_frames(label, seed=number))
    manifest, report = index_videos([str(videos)], labels="folders", deadline_seconds=60.0)
    if report.num_ok != videos_per_label * len(ACTIONS):
        raise RuntimeError(f"The test videos don't decode: {report}.")
    save_manifest(manifest, str(folder / "videos.parquet"))
    labels = folder / "labels.yaml"
    descriptions = {label: [f"a picture {label}", f"{label} slowly"] for label in ACTIONS}
    labels.write_text(yaml.safe_dump({"labels": descriptions}))
    return VideoSet(folder=videos, manifest=folder / "videos.parquet", labels=labels)


def build_recipe_values(clip: Path, videos: VideoSet, *, run_folder: Path) -> dict[str, Any]:
    """The settings of the smallest run: 2 + 2 views of 32 and 16 px, 4 clips a step, no MLflow."""
    return {
        "run": {"folder": str(run_folder), "log_every": 1, "checkpoint_every": 2},
        "clip": {"model": f"local-dir:{clip}"},
        "data": {"manifest": str(videos.manifest)},
        "concepts": {"labels": str(videos.labels)},
        "views": {
            "global": {"num_frames": 2, "size": IMAGE_SIZE},
            "local": {"count": 2, "num_frames": 2, "size": 16, "window_share": 0.5},
        },
        "objective": {"student_temperature": 0.1, "teacher_temperature": 0.05},
        "optim": {"clips_per_step": 4, "epochs": 2, "learning_rate": 1.0e-2},
        "evaluation": {"manifests": {"test": str(videos.manifest)}, "num_frames": 2},
        "tracking": {"uri": None},
    }


def build_run_config(values: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Settings, then `dotted.key=value` overrides, validated as a user's would be."""
    values = json.loads(json.dumps(values))
    for override in overrides:
        apply_override(values, override)
    return validate_config(values)


def train_run(values: dict[str, Any], folder: Path) -> Path:
    """Train as `lssl-ray train --local` does, fast and far; returns the run's folder."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    overrides = [
        "optim.max_steps=4",
        "optim.learning_rate=0.05",
        "optim.temporal_rate_factor=200.0",
        "optim.teacher_momentum=[0.2, 0.2]",
        "run.name=trained",
    ]
    with RunDisplay(Console(file=io.StringIO())) as display:
        commands.train(
            config=recipe,
            overrides=overrides,
            run_name=None,
            resume=None,
            overwrite=False,
            local=True,
            display=display,
        )
    return Path(values["run"]["folder"]) / "trained"
