"""Videos for the video tests: real ones from outside the repository, small ones made here.

decord is never imported into the test process (its FFmpeg clashes with others'); frames come
through the decode child, as they do in production.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lssl_ray.video.isolation import DecodeProcess

CLIPS = Path(__file__).resolve().parents[4] / "shared" / "clips"
GREY_STEP = 12  # frame i of a written clip is uniformly grey, i * GREY_STEP
RATES = {"mpeg1video": 25, "mpeg2video": 25}  # their standards allow no 10 fps


@pytest.fixture
def clips() -> Path:
    """The folder of real videos."""
    if not CLIPS.is_dir():
        pytest.skip("the real videos of ../shared/clips are not on this machine")
    return CLIPS


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(deadline_seconds=30.0) as process:
        yield process


def _write_clip(
    path: Path,
    *,
    num_frames: int = 20,
    width: int = 96,
    height: int = 64,
    codec: str = "mpeg4",
    num_b_frames: int = 0,
    **options: str,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream(codec, rate=RATES.get(codec, 10))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 5
        stream.codec_context.max_b_frames = num_b_frames
        for index in range(num_frames):
            grey = np.full((height, width, 3), index * GREY_STEP, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def write_clip() -> Callable[..., Path]:
    """Writes a clip, 10 fps if its codec can, whose frames tell their index."""
    return _write_clip
