"""Memory of decode children: a decoder that leaks stays bounded, in the child and in its owner."""

from pathlib import Path

import psutil
import pytest

from lssl_ray.video.isolation import DecodeError, DecodeProcess

CHILD = "misbehaving_child"
PATIENCE_SECONDS = 20.0
LEAK_MIB = 8  # per request; see misbehaving_child


@pytest.fixture(autouse=True)
def _child_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def read_rss_mib(process_id: int) -> float:
    return float(psutil.Process(process_id).memory_info().rss) / 2**20


def test_leaking_decoder_is_bounded_by_recycling() -> None:
    sizes, ids = [], []
    with DecodeProcess(
        deadline_seconds=PATIENCE_SECONDS, recycle_after=4, child_module=CHILD
    ) as process:
        before = read_rss_mib(psutil.Process().pid)
        for _ in range(24):
            frames = process.frames("leak", [0])
            ids.append(int.from_bytes(frames[0].tobytes(), "little"))
            sizes.append(read_rss_mib(ids[-1]))
        grown = read_rss_mib(psutil.Process().pid) - before
    assert len(set(ids)) == 6
    # It really leaks between recycles, and starts again from where it began.
    assert all(sizes[i + 3] - sizes[i] > 2 * LEAK_MIB for i in range(0, 24, 4))
    assert max(sizes) < sizes[0] + 4 * LEAK_MIB
    assert grown < LEAK_MIB


def test_leaking_decoder_without_recycling_is_replaced_at_its_limit_and_blames_no_file() -> None:
    sizes, ids = [], []
    with DecodeProcess(
        deadline_seconds=PATIENCE_SECONDS,
        recycle_after=10_000,
        memory_limit_mib=12 * LEAK_MIB,
        child_module=CHILD,
    ) as process:
        for _ in range(40):
            frames = process.frames("leak", [0])
            ids.append(int.from_bytes(frames[0].tobytes(), "little"))
            sizes.append(read_rss_mib(ids[-1]))
    assert len(set(ids)) >= 3
    assert max(sizes) < sizes[0] + 12 * LEAK_MIB


def test_file_that_needs_too_much_memory_is_refused_by_a_fresh_child_too() -> None:
    with DecodeProcess(
        deadline_seconds=PATIENCE_SECONDS, memory_limit_mib=256, child_module=CHILD
    ) as process:
        first = process.frames("good", [0])[0].tobytes()
        with pytest.raises(DecodeError) as caught:
            process.frames("memory", [0])
        assert caught.value.reason == "out_of_memory"
        assert process.frames("good", [0])[0].tobytes() != first
