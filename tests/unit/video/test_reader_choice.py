"""Which reader a file gets, what a reader asked for by name refuses, and machines without it."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clip_formats import FORMATS, H264, Format, Frames, write_format

from lssl_ray.video.isolation import DecodeError, DecodeProcess, DecoderUnavailableError
from lssl_ray.video.packets import PacketOrder, scan_packets
from lssl_ray.video.readers import ReaderName

NUM_FRAMES = 50
OPEN_H264 = {**H264, "x264-params": "open-gop=1"}
OPEN_X265 = {"x265-params": "log-level=none:open-gop=1"}
# decord returns other frames of these than asked for; measured by asking for each alone.
MISREAD_BY_DECORD = {
    "mpegts": Format("ts", "libx264", num_b_frames=2, options=H264),
    "mpeg": Format("mpg", "mpeg2video", num_b_frames=2),
    "avi, B-frames": Format("avi", "mpeg4", num_b_frames=2),
    "avi, h264": Format("avi", "libx264", gop=5, options=H264),
    "hevc, open groups": Format("mp4", "libx265", num_b_frames=2, options=OPEN_X265),
    "h264, open groups": Format("mp4", "libx264", num_b_frames=3, gop=8, options=OPEN_H264),
}
MISREAD_BY_TORCHCODEC = ("mpegts", "mpeg", "avi, B-frames")
REFUSED_BY_DECORD = {
    "gif": Format("gif", "gif"),
    "8x8": Format("mp4", "libx264", width=8, height=8),
    "av1": Format("mp4", "libsvtav1"),
}
REFUSED_WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 48, 72)


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(deadline_seconds=30.0, recycle_after=10**6) as process:
        yield process


def _write(path: Path, form: Format) -> tuple[str, Frames]:
    path = path / f"a.{form.extension}"
    return str(path), write_format(path, form)


def _count_wrong(process: DecodeProcess, path: str, pictures: Frames, reader: ReaderName) -> int:
    """How many frames, each asked for alone, are another picture than was written there."""
    wrong = 0
    for index in range(len(pictures)):
        frame = process.frames(path, [index], reader=reader)[0]
        difference = np.abs(pictures.astype(np.int16) - frame).mean(axis=(1, 2, 3))
        wrong += int(difference.argmin()) != index
    return wrong


@pytest.mark.parametrize("name", list(MISREAD_BY_DECORD))
def test_auto_file_that_decord_misreads_goes_to_pyav_and_comes_right(
    process: DecodeProcess, tmp_path: Path, name: str
) -> None:
    form = dataclasses.replace(MISREAD_BY_DECORD[name], num_frames=NUM_FRAMES)
    path, pictures = _write(tmp_path, form)
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames) == ("pyav", NUM_FRAMES)
    assert _count_wrong(process, path, pictures, "pyav") == 0


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
@pytest.mark.parametrize("name", list(MISREAD_BY_DECORD))
def test_decord_asked_for_a_file_that_it_misreads_refuses_it(
    process: DecodeProcess, tmp_path: Path, name: str
) -> None:
    form = dataclasses.replace(MISREAD_BY_DECORD[name], num_frames=NUM_FRAMES)
    path, pictures = _write(tmp_path, form)
    with pytest.raises(DecodeError, match="misreads") as caught:
        process.probe(path, reader="decord")
    assert caught.value.reason == "decode_failed"
    # Were this 0 with a newer decord, the file could be its own again.
    assert _count_wrong(process, path, pictures, "decord") > 0


@pytest.mark.parametrize("name", MISREAD_BY_TORCHCODEC)
def test_torchcodec_asked_for_a_file_that_it_misreads_refuses_it(
    process: DecodeProcess, tmp_path: Path, name: str
) -> None:
    path, _ = _write(tmp_path, MISREAD_BY_DECORD[name])
    try:
        with pytest.raises(DecodeError, match="misreads"):
            process.probe(path, reader="torchcodec")
    except DecoderUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("width", [*REFUSED_WIDTHS, 9, 32, 96])
def test_auto_width_that_decord_refuses_goes_to_pyav(
    process: DecodeProcess, tmp_path: Path, width: int
) -> None:
    form = Format("mkv", "ffv1", width=width, height=10, num_frames=3, pixels="bgr0")
    path, pictures = _write(tmp_path, form)
    probe = process.probe(path)
    assert (probe.reader == "pyav") == (width in REFUSED_WIDTHS)
    assert (probe.width, probe.num_frames) == (width, 3)
    frames = process.frames(path, [2, 0, 1], reader=probe.reader)
    np.testing.assert_allclose(frames, pictures[[2, 0, 1]], atol=2)


@pytest.mark.parametrize("name", list(REFUSED_BY_DECORD))
def test_auto_file_that_decord_refuses_goes_to_pyav(
    process: DecodeProcess, tmp_path: Path, name: str
) -> None:
    path, pictures = _write(tmp_path, REFUSED_BY_DECORD[name])
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames) == ("pyav", len(pictures))
    frames = process.frames(path, [7, 0, 19], reader="pyav").copy()
    try:
        assert process.probe(path, reader="torchcodec").num_frames == len(pictures)
        second = process.frames(path, [7, 0, 19], reader="torchcodec")
    except DecoderUnavailableError as error:
        pytest.skip(str(error))
    np.testing.assert_allclose(second, frames, atol=3)


@pytest.mark.parametrize("name", ["hevc, open groups", "h264, open groups"])
def test_torchcodec_open_groups_give_the_frame_asked_for_or_an_error(
    process: DecodeProcess, tmp_path: Path, name: str
) -> None:
    form = dataclasses.replace(MISREAD_BY_DECORD[name], num_frames=NUM_FRAMES)
    path, _ = _write(tmp_path, form)
    references = process.frames(path, range(NUM_FRAMES), reader="pyav").copy()
    num_given = 0
    for index, reference in enumerate(references):
        try:
            frame = process.frames(path, [index], reader="torchcodec")[0]
        except DecoderUnavailableError as error:
            pytest.skip(str(error))
        except DecodeError:
            continue
        np.testing.assert_allclose(frame, reference, atol=3)
        num_given += 1
    assert num_given >= NUM_FRAMES - 5


def test_packets_tell_how_frames_are_stored(tmp_path: Path) -> None:
    forms = {
        "closed": Format("mp4", "libx264", num_b_frames=3, options=H264),
        "open": dataclasses.replace(MISREAD_BY_DECORD["h264, open groups"], num_frames=NUM_FRAMES),
        "keys": Format("avi", "mjpeg", pixels="yuvj420p"),
    }
    found = {name: scan_packets(_write(tmp_path, form)[0]) for name, form in forms.items()}
    assert found == {
        "closed": PacketOrder(False, False, False),
        "open": PacketOrder(True, False, False),
        "keys": PacketOrder(False, False, True),
    }


def test_auto_frames_that_an_edit_list_hides_stay_hidden(
    process: DecodeProcess, clips: Path
) -> None:
    path = str(clips / "odd" / "discard_first_keyframe.mp4")  # decord gives 30
    assert scan_packets(path).has_hidden_frames
    probe = process.probe(path)
    assert (probe.reader, probe.num_frames) == ("pyav", 25)


def test_machine_without_decord_reads_all_with_pyav(tmp_path: Path) -> None:
    path, pictures = _write(tmp_path, FORMATS["h264 with B-frames"])
    with DecodeProcess(deadline_seconds=30.0, child_module="child_without_extras") as process:
        probe = process.probe(path)
        assert (probe.reader, probe.num_frames) == ("pyav", len(pictures))
        assert _count_wrong(process, path, pictures[:5], "pyav") == 0
        for absent in ("decord", "torchcodec"):
            with pytest.raises(DecoderUnavailableError, match=f"{absent} is not installed"):
                process.probe(path, reader=absent)
            with pytest.raises(DecoderUnavailableError, match=f"{absent} is not installed"):
                process.frames(path, [0], reader=absent)
        assert process.probe(path).reader == "pyav"  # the child goes on


@pytest.mark.skipif(
    importlib.util.find_spec("torchcodec") is None, reason="torchcodec is not installed"
)
def test_torchcodec_without_ffmpeg_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = _write(tmp_path, FORMATS["h264"])
    for version in range(56, 62):  # of every FFmpeg that it knows, in front of the real ones
        (tmp_path / f"libavutil.so.{version}").write_text("not a library")
    before = os.environ.get("LD_LIBRARY_PATH", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{before}")
    with DecodeProcess(deadline_seconds=30.0) as process:
        with pytest.raises(DecoderUnavailableError, match="apt-get install ffmpeg"):
            process.probe(path, reader="torchcodec")
        assert process.probe(path).num_frames == FORMATS["h264"].num_frames
