"""The second reader and its choice, through the decode child."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lssl_ray.video.isolation import DecodeError, DecodeProcess

GREY_STEP = 12  # of conftest's clips
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 240, 10), (0, 0, 0), (9, 200, 190)]
Write = Callable[..., Path]


def _indices_shown(frames: npt.NDArray[np.uint8]) -> list[int]:
    return [round(float(frame.mean()) / GREY_STEP) for frame in frames]


def _differences(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """Per frame, the mean over its pixels."""
    assert first.shape == second.shape
    return np.abs(first.astype(np.float64) - second).mean(axis=(1, 2, 3))


def _write_gif(path: Path, *, milliseconds: int | list[int] = 100) -> Path:
    pictures = [Image.new("RGB", (30, 20), color) for color in COLORS]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds)
    return path


def _drop_control_blocks(path: Path) -> Path:
    """Turns a GIF into one as of 1987: no delays, nothing between its pictures."""
    parts = path.read_bytes().split(b"\x21\xf9\x04")
    assert len(parts) == len(COLORS) + 1
    path.write_bytes(parts[0] + b"".join(part[5:] for part in parts[1:]))
    return path


def test_gif_written_by_pillow_comes_exactly(process: DecodeProcess, tmp_path: Path) -> None:
    path = str(_write_gif(tmp_path / "a.gif"))
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames, probe.codec) == ("pyav", 6, "gif")
    assert (probe.width, probe.height, probe.detail) == (30, 20, None)
    assert probe.fps == pytest.approx(10.0)
    indices = [5, 0, 3, 3, 4]
    frames = process.frames(path, indices, reader="pyav")
    expected = np.broadcast_to(
        np.array([COLORS[index] for index in indices], np.uint8)[:, None, None], (5, 20, 30, 3)
    )
    np.testing.assert_array_equal(frames, expected)


def test_gif_without_control_blocks_gives_every_picture(
    process: DecodeProcess, tmp_path: Path
) -> None:
    path = str(_drop_control_blocks(_write_gif(tmp_path / "a.gif")))
    probe = process.probe(path)
    assert (probe.num_frames, probe.fps) == (6, pytest.approx(10.0))  # FFmpeg's default delay
    frames = process.frames(path, list(range(6)), reader="pyav")
    np.testing.assert_array_equal(frames[:, 10, 10], COLORS)


def test_gif_with_uneven_delays_has_their_mean_rate(process: DecodeProcess, tmp_path: Path) -> None:
    path = _write_gif(tmp_path / "a.gif", milliseconds=[50, 50, 50, 450, 400, 100])
    assert process.probe(str(path)).fps == pytest.approx(5.0)


def test_gif_transparent_part_is_white(process: DecodeProcess, tmp_path: Path) -> None:
    pictures = []
    for color in COLORS[:2]:
        picture = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
        picture.paste((*color, 255), (0, 0, 15, 20))
        pictures.append(picture)
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    frames = process.frames(str(path), [0, 1], reader="pyav")
    np.testing.assert_array_equal(frames[:, 5, 5], COLORS[:2])
    np.testing.assert_array_equal(frames[:, 5, 25], [[255, 255, 255]] * 2)


@pytest.mark.parametrize(
    ("name", "codec", "num_b_frames"),
    [
        ("a.mpg", "mpeg1video", 2),
        ("a.mpg", "mpeg2video", 0),
        ("a.ts", "libx264", 2),
        ("a.avi", "mpeg4", 2),
    ],
)
def test_probe_container_that_decord_misreads_goes_to_pyav(
    process: DecodeProcess,
    write_clip: Write,
    tmp_path: Path,
    name: str,
    codec: str,
    num_b_frames: int,
) -> None:
    path = str(write_clip(tmp_path / name, codec=codec, num_b_frames=num_b_frames))
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames) == ("pyav", 20)
    indices = [19, 2, 7, 13, 0]
    assert _indices_shown(process.frames(path, indices, reader=probe.reader)) == indices


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_readers_h264_with_b_frames_agree(
    process: DecodeProcess, write_clip: Write, tmp_path: Path, name: str
) -> None:
    path = str(write_clip(tmp_path / name, codec="libx264", num_b_frames=2, width=98, height=66))
    assert process.probe(path).reader == "decord"
    indices = [3, 0, 12, 19, 12]
    first = process.frames(path, indices, reader="decord").copy()
    second = process.frames(path, indices, reader="pyav")
    assert _indices_shown(second) == indices
    assert _differences(first, second).max() <= 1.0


def test_readers_real_video_agree_at_full_and_reduced_size(clips: Path) -> None:
    path = str(clips / "Tw2yXa6CzWE.mp4")
    for short_side in (None, 96):
        with DecodeProcess(deadline_seconds=30.0, short_side=short_side) as process:
            first = process.frames(path, [0, 31, 150, 299], reader="decord").copy()
            second = process.frames(path, [0, 31, 150, 299], reader="pyav")
        assert _differences(first, second).max() < 2.0


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_readers_rotated_video_agree(clips: Path, degrees: int) -> None:
    path = str(clips / "odd" / f"decord_rot_{degrees}.mov")
    with DecodeProcess(deadline_seconds=30.0, short_side=160) as process:
        first = process.frames(path, [0, 1], reader="decord").copy()
        second = process.frames(path, [0, 1], reader="pyav")
    assert _differences(first, second).max() < 4.0  # two FFmpegs' colours; 20 if turned


@pytest.mark.parametrize(
    ("name", "num_frames", "fps", "codec"),
    [
        ("v_CricketShot_g04_c01_rgb.gif", 79, 25.0, "gif"),
        ("ucf101gif_crawling.gif", 8, 10.0, "gif"),
        ("odd/newtonscradle.gif", 36, 43.75, "gif"),
        ("odd/mp4parse_tiny_av1.mp4", 1, 24.0, "av1"),
        ("odd/moviepy_no_duration.webm", 74, 14.985, "vp9"),
        ("odd/ucf11_v_biking_01_01.mpg", 151, 29.97, "mpeg1video"),
        ("odd/datumaro_3.avi", 20, 10.0, "mpeg4"),  # 4x4 pixels
        ("TrumanShow_wave_f_nm_np1_fr_med_26.avi", 48, 30.0, "mpeg4"),  # packed B-frames
    ],
)
def test_probe_real_file_that_is_not_for_decord_is_read_by_pyav(
    process: DecodeProcess, clips: Path, name: str, num_frames: int, fps: float, codec: str
) -> None:
    path = str(clips / name)
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames, probe.codec) == ("pyav", num_frames, codec)
    assert (probe.fps, probe.detail) == (pytest.approx(fps, rel=1e-3), None)
    frames = process.frames(path, [num_frames - 1, 0], reader="pyav")
    assert frames.shape == (2, probe.height, probe.width, 3)


def test_probe_broken_middle_counts_frames_up_to_it(process: DecodeProcess, clips: Path) -> None:
    path = str(clips / "odd" / "decord_corrupted.mp4")
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames) == ("pyav", 28)
    assert probe.detail is not None and probe.detail.startswith("28 of 50 frames decode, then: ")
    assert process.frames(path, [27], reader="pyav").shape[0] == 1
    with pytest.raises(DecodeError, match="decode_failed"):
        process.frames(path, [28], reader="pyav")


def test_probe_truncated_mp4_without_index_stays_bad(
    process: DecodeProcess, write_clip: Write, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(DecodeError) as caught:
        process.probe(str(path))
    assert caught.value.reason == "not_a_video"


def _write_sound_with_cover(path: Path) -> Path:
    cover = np.full((32, 32, 3), 99, np.uint8)
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("mp3", rate=44100)
        picture: Any = container.add_stream("png", rate=1)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "rgb24"
        container.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
        silence = np.zeros((2, 23040), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
        frame.rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def test_probe_sound_with_cover_picture_raises_not_a_video(
    process: DecodeProcess, tmp_path: Path
) -> None:
    path = _write_sound_with_cover(tmp_path / "a.mp3")
    with pytest.raises(DecodeError, match="cover picture") as caught:
        process.probe(str(path))
    assert caught.value.reason == "not_a_video"


@pytest.mark.parametrize("indices", [[20], [0, 400], [-1], []])
def test_frames_impossible_indices_raise_decode_failed(
    process: DecodeProcess, write_clip: Write, tmp_path: Path, indices: list[int]
) -> None:
    with pytest.raises(DecodeError) as caught:
        process.frames(str(write_clip(tmp_path / "a.mp4")), indices, reader="pyav")
    assert caught.value.reason == "decode_failed"
    assert "20 frames" in caught.value.detail


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing"), (b"", "not_a_video"), (b"text", "not_a_video")]
)
def test_frames_file_that_is_no_video_raises_its_reason(
    process: DecodeProcess, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "a.gif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        process.frames(str(path), [0], reader="pyav")
    assert caught.value.reason == reason
