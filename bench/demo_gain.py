"""What adaptation gains on the demo world, and which objective brings it: a table over seeds.

Each seed renders another world and trains from scratch; CLIP is the same. Evaluated at the end, on
the world's validation videos; settings are compared with --split selection only.

    python bench/demo_gain.py                     # 3 seeds x 6 variants: over an hour, 2 cores
    python bench/demo_gain.py --seeds 1 --variants full

Prints the table, and writes its figures to --out and every run's summary below --folder.
"""

import json
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lssl_ray import commands
from lssl_ray.demo.job import FULL, RECIPE, DemoSize, prepare_demo
from lssl_ray.display import RunDisplay

Results = dict[str, list[dict[str, float]]]

VARIANTS: dict[str, tuple[str, list[str]]] = {
    "distillation": (
        "distillation only",
        ["objective.weight_align=0", "objective.weight_prior=0"],
    ),
    "distillation_prior": ("+ uniform prior", ["objective.weight_align=0"]),
    "full": ("+ alignment: the full method", []),
    "category": ("category space only", ["concepts.spaces=category"]),
    "description": ("description space only", ["concepts.spaces=description"]),
    "prior": (
        "uniform prior only",
        [
            "objective.weight_distill_category=0",
            "objective.weight_distill_description=0",
            "objective.weight_align=0",
        ],
    ),
}


def main(
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(help="Seeds count from here.")] = 0,
    variants: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    split: Annotated[
        str, typer.Option(help="validation, or selection for choices.")
    ] = "validation",
    selection_videos: Annotated[
        int, typer.Option(help="Selection videos per seed; a choice between settings wants many.")
    ] = FULL.num_selection,
    folder: Annotated[Path, typer.Option()] = Path("demo"),
    out: Annotated[Path, typer.Option()] = Path("demo/demo_gain.json"),
    overrides: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    names = list(VARIANTS) if variants == "all" else variants.split(",")
    console = Console()
    results = train_variants(
        {name: VARIANTS[name] for name in names},
        seeds=range(first_seed, first_seed + seeds),
        size=replace(FULL, num_selection=selection_videos),
        split=split,
        folder=folder,
        out=out,
        overrides=overrides or [],
        console=console,
    )
    console.print(format_table(results, VARIANTS), highlight=False, soft_wrap=True)


def train_variants(
    variants: Mapping[str, tuple[str, list[str]]],
    *,
    seeds: Iterable[int],
    size: DemoSize,
    split: str,
    folder: Path,
    out: Path,
    overrides: list[str],
    console: Console,
) -> Results:
    """Train each variant on each seed's world; the results are written to `out` after each run."""
    folder = folder.absolute()
    results: Results = {}
    with RunDisplay(console) as display:
        for seed in seeds:
            inputs = prepare_demo(folder, size=size, seed=seed, display=display)
            for name, (title, settings) in variants.items():
                display.show_phase(f"{title}, seed {seed}")
                started = time.monotonic()
                summary = commands.train(
                    config=RECIPE,
                    overrides=[
                        *inputs.build_overrides(evaluate_on=split),
                        f"run.folder={json.dumps(str(folder / 'gain'))}",
                        f"run.seed={seed}",
                        "tracking.uri=null",
                        *settings,
                        *overrides,
                    ],
                    run_name=f"{name}-{seed}",
                    resume=None,
                    overwrite=True,
                    local=True,
                    display=display,
                )
                result = summary["zero_shot"][split]
                results.setdefault(name, []).append(
                    {
                        "seed": seed,
                        "clip": result["clip_top1"],
                        "adapted": result["adapted_top1"],
                        "seconds": round(time.monotonic() - started, 1),
                    }
                )
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps({"split": split, "results": results}, indent=2))
    return results


def format_table(results: Results, variants: Mapping[str, tuple[str, list[str]]]) -> str:
    """Markdown: top-1 and gain per variant, mean and sample standard deviation, each seed."""
    lines = ["| variant | top-1, % | gain, points | gain by seed |", "|---|---|---|---|"]
    baselines = [row["clip"] for row in next(iter(results.values()))]
    lines.append(f"| CLIP, frame average | {_spread(baselines)} | - | - |")
    for name, rows in results.items():
        gains = [row["adapted"] - row["clip"] for row in rows]
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        adapted = _spread([row["adapted"] for row in rows])
        lines.append(f"| {variants[name][0]} | {adapted} | {_spread(gains)} | {each} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} +- {spread:.1f}"


if __name__ == "__main__":
    typer.run(main)
