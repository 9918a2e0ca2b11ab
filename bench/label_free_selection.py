"""How well label-free scores choose between runs: a sweep of the demo world, scored both ways.

Trains configurations drawn from stated ranges (some of them bad on purpose) for a short time on two
rendered worlds, computes every label-free score on 240 held-back videos without their labels, and
the true zero-shot accuracy on 800 validation videos. Prints rank correlations and regrets, and
writes them as JSON. A killed bench goes on where it was.

    python bench/label_free_selection.py --lanes 2            # 24 configurations x 2 seeds
    python bench/label_free_selection.py --markdown           # the table of what is there, no run
"""

import io
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from selection_pixels import load_pixels, prepare_pixels
from selection_report import compute_report, gather_results
from selection_scoring import score_run
from selection_space import sample_configurations
from selection_table import format_markdown

from lssl_ray import commands
from lssl_ray.config import load_config
from lssl_ray.demo.job import RECIPE, DemoSize, prepare_demo
from lssl_ray.display import RunDisplay
from lssl_ray.errors import TrainingError

FULL_SIZE = DemoSize(num_train=960, num_selection=240, num_validation=800)
TINY_SIZE = DemoSize(num_train=64, num_selection=32, num_validation=32)


@dataclass(frozen=True)
class RowJob:
    """One run, to be trained and scored in a process of its own.

    Attributes:
        name: Of the configuration.
        seed: Of the world and of the run.
        settings: What differs from the recipe, by dotted key.
        overrides: Everything that is set over the recipe.
        pixels: File of the decoded held-back and validation videos.
        selection: Manifest of the held-back ones.
    """

    name: str
    seed: int
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]
    pixels: Path
    selection: Path


def main(
    configurations: Annotated[int, typer.Option(help="The first is the recipe.")] = 24,
    seeds: Annotated[int, typer.Option(help="How many worlds.")] = 2,
    first_seed: Annotated[int, typer.Option(help="Seeds count from here.")] = 0,
    lanes: Annotated[int, typer.Option(help="Runs side by side, one torch thread each.")] = 1,
    steps: Annotated[int, typer.Option(help="Per run; the demo has 180.")] = 45,
    folder: Annotated[Path, typer.Option()] = Path("demo"),
    rows: Annotated[Path, typer.Option(help="A line per run.")] = Path(
        "demo/label_free_selection.jsonl"
    ),
    out: Annotated[Path, typer.Option()] = Path("demo/label_free_selection.json"),
    tiny: Annotated[bool, typer.Option("--tiny", help="A world of 128 videos, to try.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Only print the table of the rows there are.")
    ] = False,
) -> None:
    console = Console()
    if not markdown:
        sampled = sample_configurations(configurations)
        jobs = prepare_jobs(
            sampled,
            seeds=range(first_seed, first_seed + seeds),
            steps=steps,
            folder=folder.absolute(),
            size=TINY_SIZE if tiny else FULL_SIZE,
            console=console,
        )
        run_jobs(jobs, rows=rows, lanes=lanes, console=console)
    report = compute_report(gather_results(load_rows(rows)))
    staging = out.with_suffix(".writing")
    staging.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(staging, out)
    console.print(format_markdown(report), highlight=False, soft_wrap=True, markup=False)


def prepare_jobs(
    sampled: Mapping[str, dict[str, Any]],
    *,
    seeds: range,
    steps: int,
    folder: Path,
    size: DemoSize,
    console: Console,
) -> list[RowJob]:
    """Worlds, pixels, and every configuration checked before the first is trained."""
    jobs = []
    with RunDisplay(console) as display:
        for seed in seeds:
            inputs = prepare_demo(folder, size=size, seed=seed, display=display)
            base = [
                *inputs.build_overrides(evaluate_on="validation"),
                f"run.folder={json.dumps(str(folder / 'label-free'))}",
                f"run.seed={seed}",
                "run.checkpoint_every=100000",
                f"optim.max_steps={steps}",
                'health.collapse="off"',  # in YAML a bare off is false
                "tracking.uri=null",
            ]
            pixels = folder / "label-free" / f"pixels-{seed}-{size.num_validation}.safetensors"
            if not pixels.exists():
                display.show_phase(f"Decoding held-back and validation videos, seed {seed}")
                prepare_pixels(
                    load_config(RECIPE, base), selection=inputs.manifests["selection"], path=pixels
                )
            for name, settings in sampled.items():
                overrides = (
                    *base,
                    "evaluation.manifests={}",  # what is true is computed from the pixels
                    *(f"{key}={json.dumps(value)}" for key, value in settings.items()),
                )
                load_config(RECIPE, overrides)
                selection = inputs.manifests["selection"]
                jobs.append(RowJob(name, seed, settings, overrides, pixels, selection))
    # Both seeds of a configuration one after the other: half a bench can be looked at.
    return sorted(jobs, key=lambda job: list(sampled).index(job.name))


def run_jobs(jobs: list[RowJob], *, rows: Path, lanes: int, console: Console) -> None:
    """Train and score what has no row yet, and append a row when a run is done."""
    rows.parent.mkdir(parents=True, exist_ok=True)
    done = load_rows(rows)
    known = {(row["name"], row["seed"]): row["overrides"] for row in done}
    for job in jobs:
        if known.get((job.name, job.seed), list(job.overrides)) != list(job.overrides):
            raise SystemExit(
                f"{rows} holds {job.name}, seed {job.seed}, with other settings (--steps, --tiny, "
                "--folder, or an older version of this bench); delete it, or give another --rows."
            )
    # Drops a line that a kill has cut short, so that the next one does not run into it.
    staging = rows.with_suffix(".writing")
    staging.write_text("".join(json.dumps(row) + "\n" for row in done))
    os.replace(staging, rows)
    left = [job for job in jobs if (job.name, job.seed) not in known]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(lanes, mp_context=context, initializer=_end_with_parent) as pool:
        futures = [pool.submit(run_job, job) for job in left]
        try:
            for number, future in enumerate(as_completed(futures), start=len(done) + 1):
                row = future.result()
                with rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                console.print(_describe_row(row, number, len(jobs)), highlight=False, markup=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A lane whose bench was killed would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def load_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of rows."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def run_job(job: RowJob) -> dict[str, Any]:
    """Train one run and score it; one whose training breaks down is a row that says so."""
    started = time.monotonic()
    torch.set_num_threads(1)
    config = load_config(RECIPE, job.overrides)
    run_name = f"{job.name}-{job.seed}"
    run_folder = Path(config.run.folder) / run_name
    row: dict[str, Any] = {
        "name": job.name,
        "seed": job.seed,
        "settings": dict(job.settings),
        "overrides": list(job.overrides),
        "failed": None,
    }
    # What a killed bench left may be a folder too young to be known as a run's.
    shutil.rmtree(run_folder, ignore_errors=True)
    try:
        with RunDisplay(Console(file=io.StringIO())) as display:
            commands.train(
                config=RECIPE,
                overrides=job.overrides,
                run_name=run_name,
                resume=None,
                overwrite=True,
                local=True,
                display=display,
            )
        row |= score_run(config, run_folder, load_pixels(job.pixels), selection=job.selection)
    except TrainingError as error:
        row["failed"] = str(error)
    shutil.rmtree(run_folder, ignore_errors=True)
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _describe_row(row: Mapping[str, Any], number: int, total: int) -> str:
    place = f"{number}/{total} {row['name']} seed {row['seed']}, {row['seconds']:.0f} s:"
    if row["failed"]:
        return f"{place} failed, {row['failed']}"
    return f"{place} top-1 {row['top1']:.1f} (CLIP {row['clip_top1']:.1f})"


if __name__ == "__main__":
    typer.run(main)
