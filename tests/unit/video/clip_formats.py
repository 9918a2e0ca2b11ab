"""Clips in many formats whose every frame is another picture, for tests across readers.

The pictures are smooth (codecs keep them nearly), of three unlike channels (a swapped channel
shows), without symmetry (a wrong turn shows), and move (a neighbour shows).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Frames = npt.NDArray[np.uint8]
MILLISECONDS = Fraction(1, 1000)
# Of a track header, behind its name: turns by quarters clockwise, 16.16 but for the last column.
MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
MATRIX_AT = 44


@dataclass(frozen=True)
class Format:
    """How a clip is written: `extension` names the container, `options` go to the encoder."""

    extension: str
    codec: str
    width: int = 96
    height: int = 64
    num_frames: int = 30
    pixels: str = "yuv420p"
    num_b_frames: int = 0
    gop: int = 10
    rotation: int = 0
    milliseconds: tuple[int, ...] = (40,)
    options: dict[str, str] = field(default_factory=dict)


H264 = {"crf": "10", "preset": "veryfast"}
X265 = {"x265-params": "log-level=none:open-gop=0"}
PQ = {"x265-params": "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
BT709 = {**H264, "x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"}
UNEVEN = (20, 40, 130, 15)

# Read by every reader; AVI and MPEG with hazards are in `test_reader_choice.py`.
FORMATS = {
    "h264": Format("mp4", "libx264", options=H264),
    "h264 with B-frames": Format("mp4", "libx264", num_b_frames=3, options=H264),
    "h264 with B-frames in mkv": Format("mkv", "libx264", num_b_frames=3, options=H264),
    "h264 BT.709": Format("mp4", "libx264", options=BT709),
    "h264 full range": Format("mp4", "libx264", pixels="yuvj420p", options=H264),
    "h264 4:4:4": Format("mp4", "libx264", pixels="yuv444p", options=H264),
    "hevc with B-frames": Format("mp4", "libx265", num_b_frames=2, options=X265),
    "mpeg4 in avi": Format("avi", "mpeg4"),
    "mpeg4 in mp4": Format("mp4", "mpeg4", num_b_frames=0),
    "mjpeg in avi": Format("avi", "mjpeg", pixels="yuvj420p"),
    "vp8": Format("webm", "libvpx"),
    "vp9": Format("webm", "libvpx-vp9"),
    "ffv1": Format("mkv", "ffv1", pixels="bgr0"),
    "variable rate": Format("mp4", "libx264", milliseconds=UNEVEN, options=H264),
    "variable rate with B-frames": Format(
        "mkv", "libx264", num_b_frames=3, milliseconds=UNEVEN, options=H264
    ),
    "rotated 90": Format("mp4", "libx264", rotation=90, options=H264),
    "rotated 180": Format("mp4", "libx264", rotation=180, options=H264),
    "rotated 270": Format("mp4", "libx264", rotation=270, options=H264),
    "rotated 90, 101x77": Format(
        "mp4", "libx264", width=101, height=77, pixels="yuv444p", rotation=90, options=H264
    ),
    "101x77 4:4:4": Format("mp4", "libx264", width=101, height=77, pixels="yuv444p", options=H264),
    "alpha": Format("mov", "qtrle", pixels="argb"),
    "one frame": Format("mp4", "libx264", num_frames=1, options=H264),
    "two frames": Format("mp4", "libx264", num_frames=2, options=H264),
}
ODD_CHROMA = {
    "101x77 mpeg4": Format("avi", "mpeg4", width=101, height=77),
    "101x77 vp9": Format("webm", "libvpx-vp9", width=101, height=77),
    "101x77 ffv1": Format("mkv", "ffv1", width=101, height=77),
}
DEEP = {
    "h264 10 bit": Format("mp4", "libx264", pixels="yuv420p10le", num_b_frames=2, options=H264),
    "h264 4:2:2 10 bit": Format("mp4", "libx264", pixels="yuv422p10le", options=H264),
    "hevc 10 bit": Format("mp4", "libx265", pixels="yuv420p10le", num_b_frames=2, options=X265),
    "hevc 12 bit": Format("mp4", "libx265", pixels="yuv420p12le", options=X265),
    "hevc PQ": Format("mp4", "libx265", pixels="yuv420p10le", options=PQ),
}


def paint_frames(*, num_frames: int, height: int, width: int) -> Frames:
    """The pictures: uint8 [num_frames, height, width, 3]; pure."""
    time = np.arange(num_frames)[:, None, None] / max(8, num_frames)
    down = np.linspace(0.0, 1.0, height)[None, :, None]
    along = np.linspace(0.0, 1.0, width)[None, None, :]
    red = 0.5 + 0.5 * np.sin(2.0 * np.pi * (time + along))
    green = 0.15 + 0.7 * along * (1.0 - 0.4 * time) + 0.0 * down
    blue = 0.1 + 0.4 * down + 0.5 * np.abs(1.0 - 2.0 * time)
    planes = np.broadcast_arrays(red, green, np.clip(blue, 0.0, 1.0))
    return (np.stack(planes, axis=-1) * 255.0).round().astype(np.uint8)


def write_format(path: Path, form: Format) -> Frames:
    """Writes a clip; returns its pictures as they should be shown, turned."""
    pictures = paint_frames(num_frames=form.num_frames, height=form.height, width=form.width)
    if form.extension == "gif":
        _write_gif(path, pictures, form.milliseconds)
        return pictures
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(form.codec, rate=25, options=dict(form.options))
        stream.width, stream.height, stream.pix_fmt = form.width, form.height, form.pixels
        stream.thread_count = 1
        if form.codec.startswith("mpeg"):
            stream.bit_rate = 4_000_000  # neighbouring pictures must stay apart
        stream.codec_context.gop_size = form.gop
        stream.codec_context.max_b_frames = form.num_b_frames
        if len(form.milliseconds) > 1:
            stream.codec_context.time_base = stream.time_base = MILLISECONDS
        for picture, start in zip(pictures, _starts(form), strict=True):
            frame = _build_frame(picture, transparent=form.pixels == "argb")
            if len(form.milliseconds) > 1:
                frame.pts, frame.time_base = start, MILLISECONDS
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if form.rotation:
        _turn_track(path, form.rotation)
    return np.rot90(pictures, -form.rotation // 90, axes=(1, 2))


def _build_frame(picture: Frames, *, transparent: bool) -> av.VideoFrame:
    if not transparent:
        return av.VideoFrame.from_ndarray(picture, format="rgb24")
    opacity = np.full((*picture.shape[:2], 1), 255, np.uint8)
    opacity[:, : picture.shape[1] // 2] = 0  # the colour is there all the same
    return av.VideoFrame.from_ndarray(np.concatenate([picture, opacity], axis=2), format="rgba")


def _starts(form: Format) -> Sequence[int]:
    durations = np.resize(np.array(form.milliseconds), form.num_frames)
    starts: list[int] = (np.cumsum(durations) - durations).tolist()
    return starts


def _write_gif(path: Path, pictures: Frames, milliseconds: tuple[int, ...]) -> None:
    images = [Image.fromarray(picture).quantize(256) for picture in pictures]
    durations = np.resize(np.array(milliseconds), len(images)).tolist()
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)


def _turn_track(path: Path, degrees: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + MATRIX_AT
    a, b, c, d = (value * 65536 for value in MATRICES[degrees])
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
