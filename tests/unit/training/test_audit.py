"""The audit of clips: what is filed per step, and what counts as lost or done twice."""

from typing import Any

import torch

from lssl_ray.training.audit import file_positions, find_missing_and_repeated
from lssl_ray.types import ClipBatch, ClipFailure


def build_batch(trained: list[int], failed: list[int]) -> ClipBatch:
    return ClipBatch(
        global_views=torch.zeros(len(trained), 1, 1, 2, 2, 3, dtype=torch.uint8),
        local_views=None,
        augmentation=torch.zeros(len(trained), 1, 5),
        positions=tuple(trained),
        video_ids=tuple(f"v{position}" for position in trained),
        failures=tuple(
            ClipFailure("v", "/v", "missing", "", 0.0, 0, position=position) for position in failed
        ),
    )


def test_file_positions_files_each_batch_as_its_step_begins() -> None:
    filed: list[tuple[str, Any]] = []
    batches = [build_batch([12, 14], [13]), build_batch([], [15])]
    feed = file_positions(
        batches, steps_done=6, rank=1, append=lambda kind, row: filed.append((kind, row))
    )
    assert next(feed) is batches[0]
    assert filed == [("audit", {"step": 7, "rank": 1, "trained": [12, 14], "failed": [13]})]
    assert next(feed) is batches[1]
    assert filed[1] == ("audit", {"step": 8, "rank": 1, "trained": [], "failed": [15]})


def test_find_missing_and_repeated_names_positions() -> None:
    rows = [
        {"trained": [0, 1], "failed": []},
        {"trained": [3], "failed": [1]},
        {"trained": [9], "failed": [4]},
    ]
    assert find_missing_and_repeated(rows, num_positions=6) == ([2, 5], [1, 9])


def test_find_missing_and_repeated_whole_run_has_neither() -> None:
    rows = [{"trained": [2, 0], "failed": [3]}, {"trained": [1], "failed": []}]
    assert find_missing_and_repeated(rows, num_positions=4) == ([], [])
