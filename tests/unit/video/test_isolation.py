"""Isolation against real misbehaviour: the child here crashes, hangs and bloats for real."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt
import pytest

from lssl_ray.errors import ConfigError, DataError
from lssl_ray.video.cuts import Crop, Cut
from lssl_ray.video.isolation import DecodeError, DecodeProcess, DecoderUnavailableError
from lssl_ray.video.readers import ReaderName

CHILD = "misbehaving_child"
PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _child_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def bad_process() -> Iterator[DecodeProcess]:
    with DecodeProcess(deadline_seconds=PATIENCE_SECONDS, child_module=CHILD) as process:
        yield process


def _process_id(frames: npt.NDArray[np.uint8]) -> int:
    return int.from_bytes(frames[0].tobytes(), "little")


def _is_running(process_id: int) -> bool:
    """False once it ended and was reaped; a zombie of ours counts as running."""
    return Path(f"/proc/{process_id}").exists()


def _wait_until_gone(process_id: int) -> bool:
    limit = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < limit:
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":  # an orphan's zombie is init's to reap
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("segfault", "decoder_crashed", "SIGSEGV"),
        ("abort", "decoder_crashed", "SIGABRT"),
        ("exit", "decoder_crashed", "exit status 3: can't go on"),
        ("exit-zero", "decoder_crashed", "exit status 0"),
        ("native-memory", "out_of_memory", "SIGABRT"),
        ("raise", "decode_failed", "KeyError"),
    ],
)
def test_frames_misbehaving_decoder_raises_its_reason_and_recovers(
    bad_process: DecodeProcess, path: str, reason: str, detail: str
) -> None:
    before = _process_id(bad_process.frames("good", [0]))
    with pytest.raises(DecodeError) as caught:
        bad_process.frames(path, [0])
    assert (caught.value.path, caught.value.reason) == (path, reason)
    assert caught.value.detail.startswith(detail)
    assert "\n" not in caught.value.detail
    assert 0.0 <= caught.value.seconds < PATIENCE_SECONDS
    after = _process_id(bad_process.frames("good", [0]))
    assert (after == before) == (reason == "decode_failed")


def test_probe_crashing_decoder_raises_decoder_crashed(bad_process: DecodeProcess) -> None:
    with pytest.raises(DecodeError, match="decoder_crashed"):
        bad_process.probe("segfault")


def test_frames_hang_holding_the_gil_ends_at_the_deadline() -> None:
    with DecodeProcess(deadline_seconds=0.5, child_module=CHILD) as process:
        before = _process_id(process.frames("good", [0]))
        started = time.monotonic()
        with pytest.raises(DecodeError) as caught:
            process.frames("hang", [0])
        assert caught.value.reason == "deadline_exceeded"
        assert 0.5 <= caught.value.seconds <= time.monotonic() - started < 5.0
        assert not _is_running(before)
        assert _process_id(process.frames("good", [0])) != before


def test_frames_over_the_memory_limit_raises_out_of_memory() -> None:
    with DecodeProcess(
        deadline_seconds=PATIENCE_SECONDS, memory_limit_mib=256, child_module=CHILD
    ) as process:
        with pytest.raises(DecodeError) as caught:
            process.frames("memory", [0])
        assert caught.value.reason == "out_of_memory"
        assert process.frames("good", [0]).shape == (1, 2, 2, 3)


def test_frames_noisy_decoder_answers_and_keeps_the_terminal_clean(
    bad_process: DecodeProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bad_process.frames("noise", [0, 1]).shape == (2, 2, 2, 3)
    bad_process.close()
    assert capfd.readouterr() == ("", "")


def test_last_words_are_not_those_about_a_file_before(bad_process: DecodeProcess) -> None:
    bad_process.frames("noise", [0])
    with pytest.raises(DecodeError) as caught:
        bad_process.frames("exit-zero", [0])
    assert caught.value.detail == "exit status 0"


def test_frames_growing_and_shrinking_clips_come_through_shared_memory(
    bad_process: DecodeProcess,
) -> None:
    for num_frames in (1, 9, 3, 20):
        frames = bad_process.frames("large", list(range(num_frames)))
        assert frames.shape == (num_frames, 500, 700, 3)
        assert frames.dtype == np.uint8
        assert bool((frames == 7).all())
        assert bad_process.frames("good", [0]).shape == (1, 2, 2, 3)


@pytest.mark.parametrize(
    ("size", "reader", "short_side", "stays"),
    [
        ((256, 456), "decord", None, True),
        ((256, 456), "decord", 256, True),
        ((360, 640), "decord", None, False),
        ((1080, 1920), "decord", 256, False),  # small only after it was reduced
        ((256, 456), "pyav", None, False),
    ],
)
def test_decord_stays_on_one_core_for_a_clip_of_small_pictures(
    size: tuple[int, int], reader: ReaderName, short_side: int | None, stays: bool
) -> None:
    mine = os.sched_getaffinity(0)

    def plan(height: int, width: int) -> list[Cut]:
        return [Cut(np.array([0]), Crop(0, 0, 1, 1))]

    with DecodeProcess(
        deadline_seconds=PATIENCE_SECONDS, short_side=short_side, child_module=CHILD
    ) as process:
        ((_, pictures),) = process.cut("cores", plan, reader=reader, size=size)
        assert pictures[0, 0, 0, 0] == (1 if stays else len(mine))
        child = _process_id(process.frames("good", [0]))
        assert os.sched_getaffinity(child) == mine


def test_process_recycles_after_the_given_number_of_requests() -> None:
    with DecodeProcess(
        deadline_seconds=PATIENCE_SECONDS, recycle_after=2, child_module=CHILD
    ) as process:
        ids = [_process_id(process.frames("good", [0])) for _ in range(5)]
    assert ids[0] == ids[1] != ids[2] == ids[3] != ids[4]
    assert not any(map(_is_running, ids))


def test_process_child_killed_while_idle_is_replaced_without_blame(
    bad_process: DecodeProcess,
) -> None:
    first = _process_id(bad_process.frames("good", [0]))
    os.kill(first, signal.SIGKILL)
    assert _wait_until_gone(first)
    assert _process_id(bad_process.frames("good", [0])) != first


def test_process_interrupted_request_does_not_answer_the_next(bad_process: DecodeProcess) -> None:
    class Interruption(Exception):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interruption

    before = _process_id(bad_process.frames("good", [0]))
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interruption):
            bad_process.frames("hang", [0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
    assert not _is_running(before)
    assert bad_process.frames("large", [0]).shape == (1, 500, 700, 3)


def test_process_child_outlives_the_thread_that_started_it(bad_process: DecodeProcess) -> None:
    ids: list[int] = []
    thread = threading.Thread(
        target=lambda: ids.append(_process_id(bad_process.frames("good", [0])))
    )
    thread.start()
    thread.join()
    ids.append(_process_id(bad_process.frames("good", [0])))
    assert ids[0] == ids[1]


@pytest.mark.parametrize("way", ["closed", "forgotten"])
def test_process_closed_or_forgotten_leaves_no_process(way: str) -> None:
    process = DecodeProcess(deadline_seconds=PATIENCE_SECONDS, child_module=CHILD)
    process_id = _process_id(process.frames("good", [0]))
    assert _is_running(process_id)
    if way == "closed":
        process.close()
    del process
    gc.collect()
    assert not _is_running(process_id)


PARENT = """
import sys
from lssl_ray.video.isolation import DecodeProcess
process = DecodeProcess(deadline_seconds=600.0, child_module="misbehaving_child")
print(int.from_bytes(process.frames("good", [0])[0].tobytes(), "little"), flush=True)
if sys.argv[1] == "hang":
    process.frames("hang", [0])
elif sys.argv[1] == "idle":
    sys.stdin.read()
"""


@pytest.mark.parametrize("doing", ["hang", "idle", "exit"])
def test_child_ends_with_its_parent_whatever_either_does(doing: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, doing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with parent:
        assert parent.stdout is not None
        child_id = int(parent.stdout.readline())
        if doing == "exit":
            assert parent.wait(PATIENCE_SECONDS) == 0
        else:
            assert _is_running(child_id)
            parent.kill()
        assert _wait_until_gone(child_id)


def test_child_that_cannot_start_blames_no_file() -> None:
    process = DecodeProcess(deadline_seconds=1.0, child_module="no_such_child")
    with pytest.raises(DecoderUnavailableError, match="No module named no_such_child"):
        process.frames("good", [0])


def test_machine_that_starts_no_process_blames_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")  # as when an environment is replaced
    process = DecodeProcess(deadline_seconds=1.0, child_module=CHILD)
    with pytest.raises(DecoderUnavailableError, match="No such file"):
        process.frames("good", [0])


def test_frames_within_a_deadline_of_years_come() -> None:
    with DecodeProcess(deadline_seconds=1e8, child_module=CHILD) as process:
        assert process.frames("good", [0]).shape == (1, 2, 2, 3)


def test_child_imports_nothing_heavy() -> None:
    code = (
        "import sys, lssl_ray.video.decode_child, lssl_ray.video.isolation;"
        "print(sorted({'torch', 'ray', 'pydantic', 'jaxtyping', 'pyarrow'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "settings", [{"deadline_seconds": 0.0}, {"recycle_after": 0}, {"short_side": -1}]
)
def test_process_impossible_setting_raises_config_error(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        DecodeProcess(**{"deadline_seconds": 1.0, **settings})  # type: ignore[arg-type]


def test_decode_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "missing", "does not exist", 0.5)))
    assert isinstance(error, DataError)
    assert vars(error) == vars(DecodeError("a.mp4", "missing", "does not exist", 0.5))
    assert "a.mp4: missing (does not exist)" in str(error)
