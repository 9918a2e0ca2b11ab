"""The same frame from every reader: formats written here, and real files.

The oracle of a frame's index is PyAV decoding from the start of the file, itself compared with the
pictures that were written. Pixels may differ by what two colour converters round: the bounds below
are twice what was measured with decord 0.6.0, torchcodec 0.17.0 on FFmpeg 5.1 and PyAV 18.1.
"""

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from clip_formats import DEEP, FORMATS, ODD_CHROMA, Format, Frames, write_format

from lssl_ray.video.isolation import DecodeError, DecodeProcess, DecoderUnavailableError
from lssl_ray.video.readers import ReaderName

LOSS = 8.0  # a written picture through its codec and colours, mean of 256 levels; most are under 3
EIGHT_BITS = (0.5, 3)  # mean and largest difference between two readers; measured: 0
DEEPER = (2.8, 14)  # 1.4 and 7: two ways to round 10 bits to 8
ODD = (3.6, 60)  # 1.8 and 30, at the last column of half-size chroma
REDUCED = 6.0  # mean over a frame: bicubic (decord, PyAV) and bilinear (torchcodec) scalers


@dataclass(frozen=True)
class Case:
    """A format and how far the readers' pixels may be apart."""

    form: Format
    mean: float
    largest: int


CASES = {
    **{name: Case(form, *EIGHT_BITS) for name, form in FORMATS.items()},
    **{name: Case(form, *DEEPER) for name, form in DEEP.items()},
    **{name: Case(form, *ODD) for name, form in ODD_CHROMA.items()},
}


@pytest.fixture(scope="module")
def process() -> Iterator[DecodeProcess]:
    """One child for all, as importing torch takes seconds."""
    with DecodeProcess(deadline_seconds=30.0, recycle_after=10**6) as process:
        yield process


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "a.mp4"
    write_format(path, FORMATS["h264"])
    return path


@pytest.fixture(scope="module", params=["decord", "torchcodec", "pyav"])
def reader(request: pytest.FixtureRequest, process: DecodeProcess, sample: Path) -> ReaderName:
    """Each reader that this machine has."""
    name: ReaderName = request.param
    try:
        process.probe(str(sample), reader=name)
    except DecoderUnavailableError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(scope="module")
def load_clip(
    process: DecodeProcess, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Frames]]:
    """Writes a case's clip once: its path, and its frames as PyAV decodes them in order."""

    @functools.cache
    def load(name: str) -> tuple[Path, Frames]:
        form = CASES[name].form
        path = tmp_path_factory.mktemp("clip") / f"a.{form.extension}"
        pictures = write_format(path, form)
        frames = process.frames(str(path), range(len(pictures)), reader="pyav").copy()
        assert frames.shape == pictures.shape
        assert _nearest(frames, pictures) == list(range(len(pictures)))
        assert _difference(frames, pictures).mean() < LOSS
        return path, frames

    return load


def _difference(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Frames:
    assert first.shape == second.shape
    return np.abs(first.astype(np.int16) - second).astype(np.uint8)


def _nearest(frames: Frames, references: Frames) -> list[int]:
    """Index of the reference that each frame is most like."""
    return [int(_difference(np.broadcast_to(f, references.shape), references)
                .mean(axis=(1, 2, 3)).argmin()) for f in frames]  # fmt: skip


def _num_reliable(case: Case, reader: ReaderName, num_frames: int) -> int:
    """decord gives an AVI's last frame unreliably, so its probes leave that out."""
    return max(1, num_frames - (reader == "decord" and case.form.extension == "avi"))


@pytest.mark.parametrize("name", list(CASES))
def test_readers_any_frame_alone_and_in_company_is_the_same(
    process: DecodeProcess,
    reader: ReaderName,
    load_clip: Callable[[str], tuple[Path, Frames]],
    name: str,
) -> None:
    case = CASES[name]
    path, references = load_clip(name)
    probe = process.probe(str(path), reader=reader)
    assert probe.num_frames == _num_reliable(case, reader, len(references))
    rotated = references.shape[1:3]
    assert (probe.height, probe.width, probe.rotation) == (*rotated, case.form.rotation)
    last = probe.num_frames - 1
    rng = random.Random(0)
    requests = [[index] for index in range(0, last + 1, 4)]
    requests += [[last], [last, 0, last // 2, 0], rng.choices(range(last + 1), k=8)]
    for indices in requests:
        frames = process.frames(str(path), indices, reader=reader)
        assert _nearest(frames, references) == indices
        difference = _difference(frames, references[indices])
        assert difference.mean(axis=(1, 2, 3)).max() <= case.mean
        assert difference.max() <= case.largest


def test_readers_index_past_the_end_is_an_error_that_names_the_length(
    process: DecodeProcess, reader: ReaderName, sample: Path
) -> None:
    for indices in ([30], [0, 400], [-1], []):
        with pytest.raises(DecodeError, match="30 frames") as caught:
            process.frames(str(sample), indices, reader=reader)
        assert caught.value.reason == "decode_failed"


def test_readers_variable_rate_tells_frames_per_second_of_the_whole(
    process: DecodeProcess, reader: ReaderName, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    write_format(path, FORMATS["variable rate"])
    # 7.5 rounds of 205 ms; readers disagree on how long the last frame is shown.
    assert process.probe(str(path), reader=reader).fps == pytest.approx(30 / 1.5, rel=0.08)


@pytest.mark.parametrize(("short_side", "size"), [(48, (64, 48)), (50, (67, 50))])
def test_readers_reduced_frames_of_a_rotated_clip_agree(
    reader: ReaderName, tmp_path: Path, short_side: int, size: tuple[int, int]
) -> None:
    path = tmp_path / "a.mp4"
    pictures = write_format(
        path, Format("mp4", "libx264", width=320, height=240, rotation=90, options={"crf": "10"})
    )
    with DecodeProcess(deadline_seconds=30.0, short_side=short_side) as process:
        frames = process.frames(str(path), [29, 0, 13], reader=reader)
        assert frames.shape == (3, *size, 3)
        for frame, index in zip(frames, [29, 0, 13], strict=True):
            small = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[index]), "rgb24")
            expected = small.reformat(width=size[1], height=size[0]).to_ndarray()
            assert _difference(frame, expected).mean() < REDUCED
        # decord can't give rows of 48 pixels; PyAV does, and that is counted.
        assert process.num_fallbacks == (reader == "decord" and short_side == 48)


def test_readers_real_videos_agree_wherever_one_seeks_to(clips: Path, reader: ReaderName) -> None:
    names = [
        "Tw2yXa6CzWE.mp4", "SOX5yA1l24A.mp4", "asl_walk.mkv", "UCF-101_Rowing_g16_c03.avi",
        "odd/h265_10bits.mp4", "odd/testsrc2_vp9.webm", "odd/decord_rot_90.mov",
        "odd/testsrc2_odd_height_and_width_mpeg2.mp4", "odd/moviepy_transparent.webm",
    ]  # fmt: skip
    rng = random.Random(1)
    with DecodeProcess(deadline_seconds=60.0, short_side=96) as process:
        for name in names:
            path = str(clips / name)
            last = process.probe(path, reader=reader).num_frames - 1
            assert last + 1 >= process.probe(path, reader="pyav").num_frames - 1
            indices = sorted(rng.sample(range(last + 1), k=min(3, last + 1)))
            references = process.frames(path, indices, reader="pyav").copy()
            for index, reference in zip(indices, references, strict=True):
                frame = process.frames(path, [index], reader=reader)[0]
                assert _difference(frame, reference).mean() < REDUCED, (name, index)
