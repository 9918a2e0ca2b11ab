"""How far `lssl-ray plan` is from a run: predicted and real clips per second on this machine.

Plans, then trains on Ray with the same settings and two workers on the same cores, and compares
with the rate once the queues are full. Encodes its own videos and takes the smallest CLIP, or takes
any recipe:

    python bench/plan_error.py
    python bench/plan_error.py --config RECIPE --set data.manifest=mine.parquet

Run it on an idle machine: plan and run meet the same load only if there is none.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

NUM_VIDEOS = 32
WARM_UP_SHARE = 0.25  # of the windows


@dataclass(frozen=True)
class Comparison:
    """Predicted and real clips per second."""

    predicted: float
    low: float
    high: float
    real: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of the real rate; positive when it promised too much."""
        return self.predicted / self.real - 1.0

    @property
    def is_in_range(self) -> bool:
        """Whether the real rate lies in the predicted range."""
        return self.low <= self.real <= self.high


def compute_settled_rate(rows: Sequence[Mapping[str, Any]]) -> float:
    """Clips per second between the first window after the warm-up and the last one.

    Args:
        rows: Of metrics.jsonl, in order.

    Raises:
        ValueError: Fewer than two windows are left.
    """
    windows = [row for row in rows if "data/clips_trained" in row]
    kept = windows[int(WARM_UP_SHARE * len(windows)) :]
    if len(kept) < 2:
        raise ValueError(f"{len(windows)} windows are too few; train longer (--train-seconds).")
    clips = kept[-1]["data/clips_trained"] - kept[0]["data/clips_trained"]
    seconds = kept[-1]["time/train_seconds"] - kept[0]["time/train_seconds"]
    return float(clips / seconds)


def write_own_recipe(folder: Path, views: str) -> Path:
    """A recipe of the small CLIP on videos that are encoded here."""
    # Imported here, because they import torch and Ray.
    from input_files import VideoKind, prepare_videos, write_small_clip
    from input_setting import RECIPES, Setting, build_config, count_cores

    from lssl_ray.config import dump_config

    kind = VideoKind(seconds=10, gop=250)
    manifest = prepare_videos(folder, num_videos=NUM_VIDEOS, kind=kind, num_workers=count_cores())
    write_small_clip(folder / "clip", image_size=RECIPES[views]["global"]["size"])
    setting = Setting(
        manifest=manifest, folder=folder, recipe=views, clips_per_batch=8, num_batches=1,
        num_decoders=count_cores(), num_workers=2,
    )  # fmt: skip
    config = build_config(setting, optim={"max_steps": None, "epochs": 1000})
    path = folder / f"{views}.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    return path


def run_command(*arguments: str) -> None:
    """One of the library's commands; its output is shown."""
    command = [str(Path(sys.executable).parent / "lssl-ray"), *arguments]
    print(f"$ lssl-ray {' '.join(arguments)}", flush=True)
    subprocess.run(command, check=True)


def compare(
    recipe: Path, settings: Sequence[str], folder: Path, *, seconds: float, train_seconds: float
) -> Comparison:
    """Plan, train for about `train_seconds`, and compare."""
    overrides = [part for setting in settings for part in ("--set", setting)]
    plan_file = folder / "plan.json"
    run_command(
        "plan", "--config", str(recipe), *overrides,
        "--seconds", f"{seconds:g}", "--json", str(plan_file),
    )  # fmt: skip
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    rate, clips = plan["estimate"]["clips_per_second"], plan["work"]["clips_per_step"]
    steps = max(12, round(train_seconds * rate["value"] / clips))
    run_command(
        "train", "--config", str(recipe), *overrides, "--run-name", "plan_error", "--overwrite",
        "--set", f"run.folder={json.dumps(str(folder / 'runs'))}",
        "--set", f"optim.max_steps={steps}", "--set", "run.log_every=1",
        "--set", f"run.checkpoint_every={steps}", "--set", "tracking.uri=null",
    )  # fmt: skip
    metrics = (folder / "runs" / "plan_error" / "metrics.jsonl").read_text(encoding="utf-8")
    real = compute_settled_rate([json.loads(line) for line in metrics.splitlines()])
    return Comparison(rate["value"], rate["low"], rate["high"], real)


def main(
    config: Annotated[Path | None, typer.Option(help="Recipe; default: one of its own.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Overrides.")] = None,
    views: Annotated[str, typer.Option(help="Of its own recipe: light or paper.")] = "light",
    seconds: Annotated[float, typer.Option(help="To plan for.")] = 60.0,
    train_seconds: Annotated[float, typer.Option(help="To train for, about.")] = 120.0,
    folder: Annotated[Path | None, typer.Option(help="Kept; default: a temporary one.")] = None,
) -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        place = (folder or Path(temporary)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        recipe = config or write_own_recipe(place, views)
        result = compare(
            recipe, settings or [], place, seconds=seconds, train_seconds=train_seconds
        )
    print(f"\nLoad average before the start: {load:.1f}")
    print("| predicted clips/s | real clips/s | error | real one in the range |\n|--:|--:|--:|---|")
    print(
        f"| {result.predicted:.2f} ({result.low:.2f} to {result.high:.2f}) | {result.real:.2f} | "
        f"{100 * result.error:+.1f} % | {'yes' if result.is_in_range else 'no'} |"
    )


if __name__ == "__main__":
    typer.run(main)
