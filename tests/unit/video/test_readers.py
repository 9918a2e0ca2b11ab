"""Readers, through the decode child: real files, damaged files, and clips whose frames tell
their index."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from lssl_ray.video.isolation import DecodeError, DecodeProcess, VideoProbe

GREY_STEP = 12  # of conftest's clips
ODD_DEADLINE_SECONDS = 20.0
Write = Callable[..., Path]


def _indices_shown(frames: npt.NDArray[np.uint8]) -> list[int]:
    return [round(float(frame.mean()) / GREY_STEP) for frame in frames]


def _decode_all(path: Path) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    "indices", [[0], [19], [0, 7, 13, 19], [5, 5, 5], [9, 3, 9, 0], list(range(20))]
)
def test_frames_any_indices_come_in_order_with_duplicates(
    process: DecodeProcess, write_clip: Write, tmp_path: Path, indices: list[int]
) -> None:
    frames = process.frames(str(write_clip(tmp_path / "a.mp4")), indices)
    assert frames.shape == (len(indices), 64, 96, 3)
    assert _indices_shown(frames) == indices


def test_frames_writable_for_torch(
    process: DecodeProcess, write_clip: Write, tmp_path: Path
) -> None:
    assert process.frames(str(write_clip(tmp_path / "a.mp4")), [0]).flags.writeable


@pytest.mark.parametrize("indices", [[20], [0, 400], [-1], []])
def test_frames_impossible_indices_raise_decode_failed(
    process: DecodeProcess, write_clip: Write, tmp_path: Path, indices: list[int]
) -> None:
    with pytest.raises(DecodeError) as caught:
        process.frames(str(write_clip(tmp_path / "a.mp4")), indices)
    assert caught.value.reason == "decode_failed"
    assert "20 frames" in caught.value.detail


@pytest.mark.parametrize(
    ("width", "height", "short_side", "expected"),
    [
        (240, 160, 80, (80, 120)),
        (160, 240, 80, (120, 80)),
        (96, 64, 64, (64, 96)),
        (96, 64, 500, (64, 96)),
    ],
)
def test_frames_short_side_shrinks_only_larger_videos(
    write_clip: Write,
    tmp_path: Path,
    width: int,
    height: int,
    short_side: int,
    expected: tuple[int, int],
) -> None:
    path = write_clip(tmp_path / "a.mp4", width=width, height=height)
    with DecodeProcess(deadline_seconds=30.0, short_side=short_side) as small:
        frames = small.frames(str(path), [4, 0, 11])
    assert frames.shape[1:3] == expected
    assert _indices_shown(frames) == [4, 0, 11]


def test_frames_name_with_odd_characters_decodes(
    process: DecodeProcess, write_clip: Write, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "a\nfolder" / "\u00e9 %d \u6f22'.mp4")
    assert _indices_shown(process.frames(str(path), [3])) == [3]


def test_frames_real_video_equal_an_independent_decoder(
    process: DecodeProcess, clips: Path
) -> None:
    path = clips / "Tw2yXa6CzWE.mp4"
    frames = process.frames(str(path), [0, 31, 150, 299])
    reference = _decode_all(path)
    for frame, index in zip(frames, [0, 31, 150, 299], strict=True):
        difference = np.abs(frame.astype(np.int16) - reference[index]).mean()
        assert difference < 2.0  # two FFmpegs convert colours a little differently


@pytest.mark.parametrize(("turns", "name"), [(0, "0"), (3, "90"), (2, "180"), (1, "270")])
def test_frames_rotated_video_comes_upright(
    process: DecodeProcess, clips: Path, turns: int, name: str
) -> None:
    path = clips / "odd" / f"decord_rot_{name}.mov"
    frame = process.frames(str(path), [1])[0]
    expected = np.rot90(_decode_all(path)[1], turns)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(np.int16) - expected).mean() < 4.0
    probe = process.probe(str(path))
    assert (probe.rotation, probe.height, probe.width) == (int(name), *frame.shape[:2])


def test_probe_written_clip_tells_what_was_written(
    process: DecodeProcess, write_clip: Write, tmp_path: Path
) -> None:
    assert process.probe(str(write_clip(tmp_path / "a.mp4"))) == VideoProbe(
        num_frames=20,
        fps=10.0,
        duration_seconds=2.0,
        width=96,
        height=64,
        codec="mpeg4",
        rotation=0,
        reader="decord",
        detail=None,
    )


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_probe_short_clip_counts_its_frames(
    process: DecodeProcess, write_clip: Write, tmp_path: Path, num_frames: int
) -> None:
    path = write_clip(tmp_path / "a.mp4", num_frames=num_frames)
    assert process.probe(str(path)).num_frames == num_frames


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [
        ("v_BasketballDunk_g01_c07.avi", 56),  # has 57, the last comes unreliably
        ("v_Diving_g01_c01.avi", 258),
    ],
)
def test_probe_avi_leaves_out_the_unreliable_end(
    process: DecodeProcess, clips: Path, name: str, num_frames: int
) -> None:
    path = clips / name
    assert process.probe(str(path)).num_frames == num_frames
    reference = _decode_all(path)[num_frames - 1].astype(np.int16)
    for _ in range(5):
        last = process.frames(str(path), [0, num_frames - 1])[1]
        assert np.abs(last - reference).mean() < 2.0


def test_probe_static_video_keeps_its_length(process: DecodeProcess, clips: Path) -> None:
    assert process.probe(str(clips / "odd" / "mp4parse_white.mp4")).num_frames == 300


def _write_text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n" * 3)


@pytest.mark.parametrize(
    ("create", "reason", "detail"),
    [
        (lambda path: None, "missing", "does not exist"),
        (lambda path: path.symlink_to("nowhere.mp4"), "missing", "broken symbolic link"),
        (lambda path: path.symlink_to(path), "unreadable", "symbolic links"),
        (Path.mkdir, "not_a_video", "folder"),
        (Path.touch, "not_a_video", "empty"),
        (os.mkfifo, "not_a_video", "not a regular file"),
        (_write_text, "not_a_video", "Invalid data"),
    ],
)
@pytest.mark.parametrize("operation", ["probe", "frames"])
def test_reader_file_that_is_no_video_raises_its_reason(
    process: DecodeProcess,
    tmp_path: Path,
    operation: str,
    create: Callable[[Path], None],
    reason: str,
    detail: str,
) -> None:
    path = tmp_path / "a.mp4"
    create(path)
    with pytest.raises(DecodeError) as caught:
        if operation == "probe":
            process.probe(str(path))
        else:
            process.frames(str(path), [0])
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reader_file_without_permission_raises_unreadable(
    process: DecodeProcess, write_clip: Write, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "a.mp4")
    path.chmod(0)
    with pytest.raises(DecodeError, match="unreadable"):
        process.probe(str(path))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sigsegv.png", "not_a_video"),
        ("corrupt.jpg", "not_a_video"),
        ("nasa_13013.mp4.audio.mp3", "not_a_video"),
        ("lfs_pointer_archery.mp4", "not_a_video"),
        ("shaka_init-segment.webm", "no_frames"),
        ("mp4parse_short-cenc.mp4", "decode_failed"),
    ],
)
def test_probe_damaged_real_file_raises_its_reason(
    process: DecodeProcess, clips: Path, name: str, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        process.probe(str(clips / "odd" / name))
    assert caught.value.reason == reason
    assert "/github/workspace" not in caught.value.detail


def test_frames_every_odd_file_ends_in_frames_or_a_reason(clips: Path) -> None:
    outcomes: dict[str, str] = {}
    with DecodeProcess(deadline_seconds=ODD_DEADLINE_SECONDS, short_side=128) as process:
        for path in sorted((clips / "odd").iterdir()):
            try:
                probe = process.probe(str(path))
                indices = np.linspace(0, probe.num_frames - 1, 8).astype(int).tolist()
                frames = process.frames(str(path), indices, reader=probe.reader)
            except DecodeError as error:
                assert error.seconds < ODD_DEADLINE_SECONDS + 1.0
                outcomes[path.name] = error.reason
                continue
            assert frames.shape[0] == 8
            assert min(frames.shape[1:3]) == min(128, probe.width, probe.height)
            outcomes[path.name] = "ok"
    assert list(outcomes.values()).count("ok") >= 39  # of 56; most others hold no video
    assert {outcomes[path.name] for path in (clips / "odd").glob("*.gif")} == {"ok"}
    assert set(outcomes.values()) <= {"ok", "not_a_video", "no_frames", "decode_failed"}
