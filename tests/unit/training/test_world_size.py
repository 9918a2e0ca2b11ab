"""Two gloo workers compute what one worker computes on their clips together."""

import json
from pathlib import Path
from typing import Any

import lss_parts
import pytest
import torch
import torch.multiprocessing as mp
import world_worker
from safetensors.torch import load_file
from torch import Tensor

Result = tuple[dict[str, Tensor], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def two_workers(tiny_clip_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what two workers computed in every case, in one process group."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.spawn(
            world_worker.run_worker, args=(2, str(tiny_clip_dir), str(folder)), nprocs=2, join=True
        )
    return folder


@pytest.fixture(scope="module")
def one_worker(tiny_clip_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What one worker computes on all clips at once, by the task's options."""
    results = {}
    for options in world_worker.OPTIONS:
        rows = lss_parts.Rows()
        context = lss_parts.build_context(tmp_path_factory.mktemp(options), rows)
        results[options] = world_worker.run_case(
            str(tiny_clip_dir), world_worker.draw_batches(), context, rows, options=options
        )
    return results


@pytest.mark.parametrize("case", sorted(world_worker.CASES))
@pytest.mark.parametrize("rank", [0, 1])
def test_two_workers_gradients_and_weights_equal_one_worker(
    two_workers: Path, one_worker: dict[str, Result], case: str, rank: int
) -> None:
    actual = load_file(two_workers / f"{case}_{rank}.safetensors")
    expected = one_worker[world_worker.CASES[case][0]][0]
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(
            actual[name], value, rtol=1e-6, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )
    gradients = [value for name, value in expected.items() if name.startswith("gradient")]
    assert max(float(value.abs().max()) for value in gradients) > 1e-2


@pytest.mark.parametrize("case", sorted(world_worker.CASES))
def test_two_workers_recorded_losses_equal_one_worker(
    two_workers: Path, one_worker: dict[str, Result], case: str
) -> None:
    actual = json.loads((two_workers / f"{case}_0.json").read_text())
    options = world_worker.CASES[case][0]
    for record, expected in zip(actual, one_worker[options][1], strict=True):
        losses = {name: value for name, value in expected.items() if name.startswith("loss/")}
        assert len(losses) == (3 if options == "prototypes" else 6)
        assert {name: record[name] for name in losses} == pytest.approx(losses, rel=1e-6)
        assert record["data/clips_trained"] == expected["data/clips_trained"]
    assert json.loads((two_workers / f"{case}_1.json").read_text()) == []
