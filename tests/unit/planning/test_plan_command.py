"""`lssl-ray plan` end to end on the smallest run, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import safe_open
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.training.checkpoint import list_checkpoints
from lssl_ray.video.manifest import build_manifest, load_manifest, save_manifest

EXIT_REFUSED = 2


def run_plan(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["plan", *(str(item) for item in arguments)], env=environment)


def load_plan(recipe: Path, folder: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    path = folder / "plan.json"
    result = run_plan("--config", recipe, "--json", path, *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(path.read_text()), result.stdout


def count_stored_bytes(checkpoint: Path) -> int:
    """Weights and moments in a checkpoint's files, without AdamW's step counts."""
    total = 0
    for name in ("student", "teacher", "optimizer"):
        with safe_open(checkpoint / f"{name}.safetensors", framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping
                total += 0 if key.startswith("step/") else file.get_tensor(key).nbytes
    return total


def test_plan_of_this_machine_measures_decoding_and_step(
    recipe_file: Path, tmp_path: Path, trained_run: Path
) -> None:
    overrides = ("--set", "optim.epochs=3", "--set", "run.checkpoint_every=4")
    plan, shown = load_plan(recipe_file, tmp_path, "--seconds", 3, *overrides)
    work, estimate, costs = plan["work"], plan["estimate"], plan["costs"]
    assert (work["num_clips"], work["num_steps"]) == (24, 6)  # 8 videos, 3 epochs, 4 clips a step
    assert estimate["num_checkpoints"] == 2
    # 2 views of 2 frames of 32 px, and of 16 px, three bytes per pixel.
    assert work["clip_bytes"] == 2 * 2 * 3 * (32**2 + 16**2)
    assert work["checkpoint_bytes"] == count_stored_bytes(list_checkpoints(trained_run)[-1])
    assert costs["decode_seconds"]["source"] == "measured"
    assert costs["step_seconds"]["source"] in ("measured", "computed")
    assert costs["step_seconds"]["low"] > 0
    assert set(estimate["bounds"]) == {"decode", "step", "cores", "driver"}
    slowest = estimate["bounds"][estimate["bottleneck"]]["value"]
    assert estimate["clips_per_second"]["value"] == slowest
    assert slowest == min(bound["value"] for bound in estimate["bounds"].values())
    assert plan["shape"]["num_workers"] == 1
    assert "measured" in shown
    assert not (tmp_path / "runs").exists()


def test_plan_of_gpus_that_are_not_here_says_so_and_takes_the_users_figure(
    recipe_file: Path, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, and the step is measured on it")
    shape = ("--train-nodes", 2, "--gpus-per-node", 1, "--decode-nodes", 1, "--cores-per-node", 4)
    plan, shown = load_plan(recipe_file, tmp_path, "--seconds", 1, *shape)
    assert plan["costs"]["step_seconds"] is None
    assert "step" not in plan["estimate"]["bounds"]
    assert "--gpu-tflops" in shown
    assert set(plan["estimate"]["bounds"]) == {"decode", "network in", "network out", "driver"}
    plan, _ = load_plan(recipe_file, tmp_path, "--seconds", 1, *shape, "--gpu-tflops", 0.001)
    figure = plan["costs"]["step_seconds"]
    assert figure["source"] == "assumed"
    assert figure["value"] == pytest.approx(2 * plan["work"]["clip_flops"] / 1e9)  # 2 clips each


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--train-nodes", 5, "--cores-per-node", 8), "optim.clips_per_step=5"),
        (("--step-seconds", 1, "--gpu-tflops", 1), "--gpu-tflops"),
        (("--train-nodes", 1, "--cores-per-node", 1), "--cores-per-node"),
        (("--manifest", "/nowhere.parquet"), "/nowhere.parquet"),
        (("--set", "optim.epoch=3"), "did you mean epochs?"),
    ],
    ids=["too many workers", "both", "no core left", "no manifest", "typo"],
)
def test_plan_impossible_request_is_refused(
    recipe_file: Path, arguments: tuple[object, ...], word: str
) -> None:
    result = run_plan("--config", recipe_file, *arguments)
    assert result.exit_code == EXIT_REFUSED, result.output
    assert word in result.stderr
    assert "Traceback" not in result.output


def test_plan_takes_the_manifest_of_the_option(
    recipe_file: Path, tmp_path: Path, videos: tiny.VideoSet
) -> None:
    some = tmp_path / "some.parquet"
    records = load_manifest(str(videos.manifest)).records()[:5]
    save_manifest(build_manifest(records, root="/"), str(some))
    plan, _ = load_plan(
        recipe_file, tmp_path, "--seconds", 1, "--manifest", some, "--step-seconds", 0.5
    )
    assert plan["work"]["num_clips"] == 10  # 5 videos, 2 epochs
    assert plan["costs"]["step_seconds"]["value"] == 0.5
