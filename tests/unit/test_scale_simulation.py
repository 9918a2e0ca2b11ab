"""The bench that simulates large runs: bounds on memory per row, and every position dealt once."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lssl_ray.video.manifest import Manifest, load_manifest
from lssl_ray.video.order import ClipVisit, RunPlan

BENCH = Path(__file__).resolve().parents[2] / "bench"
ROWS = 100_000


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    sys.path.insert(0, str(BENCH))
    yield importlib.import_module("scale_simulation")
    sys.path.remove(str(BENCH))
    del sys.modules["scale_simulation"]


@pytest.fixture(scope="module")
def manifest(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path = tmp_path_factory.mktemp("scale") / "synthetic.parquet"
    bench.write_synthetic_manifest(path, num_rows=ROWS)
    assert path.stat().st_size / ROWS < 60
    return load_manifest(str(path))


def test_simulated_manifest_takes_few_bytes_per_row(manifest: Manifest) -> None:
    assert len(manifest) == ROWS
    assert manifest.table.nbytes / ROWS < 300
    assert manifest.row(ROWS - 1).video_id == "class_399/video_000099999.mp4"
    assert len(manifest.bad()) == ROWS // 1000


def test_manifest_crosses_to_decoders_without_being_copied(bench: Any, manifest: Manifest) -> None:
    inside, beside = bench.measure_pickled(manifest)
    # What each process of a node copies does not grow with the rows; the rest is mapped.
    assert inside < 20_000
    assert beside >= 0.9 * manifest.table.nbytes


def test_thousand_workers_share_a_step_without_gap_or_overlap(bench: Any) -> None:
    plan = RunPlan(num_videos=10**8, num_positions=10**9, seed=0)
    bench.check_split(plan, num_workers=1000, clips_per_worker=2)
    short = RunPlan(num_videos=10, num_positions=1500, seed=0)
    bench.check_split(short, num_workers=1000, clips_per_worker=2)


def test_split_that_deals_twice_is_found(bench: Any) -> None:
    class Twice(RunPlan):
        def compute_visits(self, start: int, stop: int) -> list[ClipVisit]:
            return super().compute_visits(0, stop - start)

    plan = Twice(num_videos=10, num_positions=100, seed=0)
    with pytest.raises(RuntimeError, match="twice"):
        bench.check_split(plan, num_workers=4, clips_per_worker=2)


def test_simulated_parts_report_every_step(bench: Any, tmp_path: Path) -> None:
    parts = bench.simulate(5000, str(tmp_path), 10, 4) + bench.measure_journal(200)
    names = [part.name for part in parts]
    assert names[0] == "load_manifest"
    assert "digest()" in names
    assert "append 200 failures" in names
    assert all(part.seconds >= 0 and part.peak_mib >= part.kept_mib - 1 for part in parts)
