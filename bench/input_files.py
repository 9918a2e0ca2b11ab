"""The videos that `input.py` and `soak.py` read: encoded once, indexed, in the page cache.

H.264 as a phone or a downloader writes it: 340x256, 30 fps, 10 s, a texture that drifts and a few
squares that cross it, so that no frame equals the last. The content is a pure function of the
video's number; files that are there already are kept.
"""

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from open_clip.model import CLIP
from safetensors.torch import save_file

from lssl_ray.video.index import index_videos
from lssl_ray.video.manifest import Manifest, build_manifest, load_manifest, save_manifest

WIDTH, HEIGHT, FPS = 340, 256, 30
DRIFT = 96  # px that the texture may move over a video
SQUARES, SQUARE = 4, 48
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class VideoKind:
    """How a video is encoded: its length, and frames between two that decode on their own."""

    seconds: int
    gop: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{WIDTH}x{HEIGHT}_{self.seconds}s_{FPS}fps_gop{self.gop}"


def prepare_videos(folder: Path, *, num_videos: int, kind: VideoKind, num_workers: int) -> Path:
    """Encode what is missing, index it, and return the manifest's path."""
    videos = folder / kind.name
    videos.mkdir(parents=True, exist_ok=True)
    paths = [videos / f"{number:05d}.mp4" for number in range(num_videos)]
    for number, path in enumerate(paths):
        if not path.exists():
            encode_video(path, seed=number, kind=kind)
    manifest, report = index_videos([str(path) for path in paths], num_workers=num_workers)
    if report.num_ok != num_videos:
        raise SystemExit(f"{report.num_bad} of {num_videos} videos in {videos} don't decode.")
    target = folder / f"{kind.name}_{num_videos}.parquet"
    save_manifest(manifest, str(target))
    return target


def encode_video(path: Path, *, seed: int, kind: VideoKind) -> None:
    """Write one video with libx264's defaults but for the thread and the GOP."""
    staging = path.with_suffix(".writing.mp4")
    paint = build_painter(seed, num_frames=kind.seconds * FPS)
    with av.open(str(staging), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        stream.gop_size = kind.gop
        stream.options = {"preset": "veryfast", "crf": "23"}
        for index in range(kind.seconds * FPS):
            frame = av.VideoFrame.from_ndarray(paint(index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(staging, path)


def build_painter(seed: int, *, num_frames: int) -> Callable[[int], NDArray[np.uint8]]:
    """A function from a frame's index to its picture, uint8 [256, 340, 3]."""
    rng = np.random.default_rng(seed)
    height, width = HEIGHT + DRIFT, WIDTH + DRIFT
    coarse = rng.integers(30, 200, size=(height // 16 + 1, width // 16 + 1, 3))
    texture = np.kron(coarse, np.ones((16, 16, 1)))[:height, :width]
    texture = np.clip(texture + rng.normal(0, 12, size=texture.shape), 0, 255).astype(np.uint8)
    starts = rng.random((SQUARES, 2))
    speeds = rng.uniform(-2, 2, size=(SQUARES, 2))
    colours = rng.integers(0, 256, size=(SQUARES, 3))

    def paint(index: int) -> NDArray[np.uint8]:
        share = index / max(1, num_frames - 1)
        top, left = int(DRIFT * share), int(DRIFT * abs(1 - 2 * share))
        frame = texture[top : top + HEIGHT, left : left + WIDTH].copy()
        places = np.abs((starts + speeds * share) % 2 - 1) * (HEIGHT - SQUARE, WIDTH - SQUARE)
        for (row, column), colour in zip(places.astype(int), colours, strict=True):
            frame[row : row + SQUARE, column : column + SQUARE] = colour
        return frame

    return paint


def repeat_rows(manifest: Manifest, *, num_rows: int) -> Manifest:
    """A manifest of that many rows on the same files: each row an id of its own."""
    rows = zip(range(num_rows), itertools.cycle(manifest.records()), strict=False)
    return build_manifest(
        (replace(record, video_id=f"{row:07d}/{record.video_id}") for row, record in rows),
        root=manifest.root,
    )


def warm_page_cache(manifest_path: Path) -> int:
    """Read every file once; returns their bytes."""
    num_bytes = 0
    for record in load_manifest(str(manifest_path)).usable().records():
        with open(record.path, "rb") as file:
            while data := file.read(READ_BYTES):
                num_bytes += len(data)
    return num_bytes


def write_small_clip(folder: Path, *, image_size: int) -> Path:
    """A random CLIP of two narrow layers as open_clip's local folder: a step as cheap as can be."""
    tower = {"layers": 2, "width": 64}
    config = {
        "embed_dim": 32,
        "vision_cfg": {**tower, "image_size": image_size, "patch_size": 16, "head_width": 32},
        "text_cfg": {**tower, "context_length": 32, "vocab_size": 49408, "heads": 2},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    weights = {name: value.contiguous() for name, value in CLIP(**config).state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder
