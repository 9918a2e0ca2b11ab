"""What one decoder takes: the decode actor's process and its child, by size of the videos.

The actor is this process with what Ray Data's actors import; the child is the real one. Views are
the paper's (2 x 8 x 224 and 8 x 8 x 96), frames of 1080p are reduced on decoding as by default.

    python bench/decode_memory.py
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from lssl_ray.cluster.data import ClipStream  # what the actor imports, Ray included
from lssl_ray.video.index import index_videos
from lssl_ray.video.order import ClipVisit
from lssl_ray.video.pipeline import ClipDecoder, DecodedClip
from lssl_ray.video.recipe import DecodeSettings, ViewKind, ViewRecipe

SIZES = {"340x256": (340, 256), "1920x1080": (1920, 1080), "3840x2160": (3840, 2160)}
RECIPE = ViewRecipe(
    global_views=ViewKind(count=2, num_frames=8, size=224, area=(0.4, 1.0), window_share=1.0),
    local_views=ViewKind(count=8, num_frames=8, size=96, area=(0.05, 0.4), window_share=0.125),
    window_seconds=8.5,
    flip_probability=0.5,
    jitter_probability=0.8,
    jitter_strength=(0.4, 0.4, 0.2),
    grey_probability=0.2,
)


def write_video(path: Path, width: int, height: int, num_frames: int) -> None:
    """H.264 with B-frames and a moving gradient."""
    rows, columns = np.mgrid[0:height, 0:width]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for number in range(num_frames):
            grey = ((rows + columns + 3 * number) % 256).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, axis=2), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(folder: Path, *, clips: int, short_side: int) -> tuple[float, float, float]:
    """MiB of actor (unique), child at its start and child at its peak (resident)."""
    manifest, _ = index_videos([str(folder)], deadline_seconds=120.0)
    settings = DecodeSettings(deadline_seconds=120.0, recycle_after=10_000, short_side=short_side)
    start = peak = 0.0
    with ClipDecoder(manifest, recipe=RECIPE, settings=settings, seed=0) as decoder:
        for epoch in range(clips):
            clip = decoder.decode(ClipVisit(position=epoch, epoch=epoch, video=0))
            if not isinstance(clip, DecodedClip):
                raise RuntimeError(f"{folder}: {clip.failure}")
            (child,) = psutil.Process().children()
            status = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            (high,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
            peak = max(peak, int(high) / 1024)
            start = start or peak
        actor = psutil.Process().memory_full_info().uss / 2**20
    return actor, start, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--short-side", type=int, default=512)
    options = parser.parse_args()
    print(f"{ClipStream.__name__} imported: {psutil.Process().memory_full_info().uss >> 20} MiB")
    print("| video | actor, MiB | child after one clip, MiB | child at its peak, MiB |")
    print("|---|--:|--:|--:|")
    for name, (width, height) in SIZES.items():
        with tempfile.TemporaryDirectory() as text:
            write_video(Path(text) / "video.mp4", width, height, options.frames)
            actor, start, peak = measure(
                Path(text), clips=options.clips, short_side=options.short_side
            )
        print(f"| {name} | {actor:.0f} | {start:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
