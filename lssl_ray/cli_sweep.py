"""`lssl-ray sweep` and `lssl-ray demo-sweep`: many trainings, compared."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lssl_ray.display import open_display
from lssl_ray.errors import ConfigError

MaxConcurrentOption = Annotated[
    int | None, typer.Option(min=1, help="Trials at once; default: as many as fit.")
]


def sweep(
    space: Annotated[
        Path | None, typer.Option(help="What is varied: tune_spaces/NAME.py.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Recipe that all trials share.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations to try; a grid needs no number.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c."),
    ] = None,
    gpus_per_trial: Annotated[
        int | None, typer.Option(min=0, help="Workers with a GPU each; default: as in the recipe.")
    ] = None,
    search: Annotated[
        Literal["random", "grid", "optuna"] | None,
        typer.Option(help="How configurations are drawn.  [default: random]", show_default=False),
    ] = None,
    scheduler: Annotated[
        Literal["asha", "none"] | None,
        typer.Option(help="What stops trials early.  [default: asha]", show_default=False),
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="Label-free score to choose by, or zero_shot:SPLIT.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trials of each configuration.  [default: 1]", show_default=False),
    ] = None,
    max_concurrent: MaxConcurrentOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep and its folder.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with a sweep: name, or folder.")
    ] = None,
    hold_back: Annotated[
        int | None, typer.Option(min=2, help="Videos for label-free scores, never trained on.")
    ] = None,
) -> None:
    """Train many configurations, stop the poor ones early, rank them, keep the best."""
    with open_display() as display:
        given: dict[str, Any] = {
            "config": config,
            "num_trials": trials,
            "overrides": overrides,
            "gpus_per_trial": gpus_per_trial,
            "search": search,
            "scheduler": scheduler,
            "select": select,
            "num_seeds": seeds,
            "name": name,
            "hold_back": hold_back,
        }
        given = {key: value for key, value in given.items() if value is not None}
        if resume is not None and (space is not None or given):
            raise ConfigError(
                "--resume goes on with a sweep as it was begun; beside it only --max-concurrent "
                "may be given."
            )
        from lssl_ray.sweeping.job import sweep as run_sweep
        from lssl_ray.sweeping.request import SweepRequest

        given.setdefault("config", None)
        run_sweep(
            None if space is None else SweepRequest(space=space, **given),
            resume=resume,
            max_concurrent=max_concurrent,
            display=display,
        )


def demo_sweep(
    folder: Annotated[Path, typer.Option(help="Where world, CLIP and sweeps go.")] = Path("demo"),
    space: Annotated[Path, typer.Option(help="What is varied.")] = Path("tune_spaces/demo.py"),
    seed: Annotated[int, typer.Option(help="Seed of world, CLIP and training.")] = 0,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with a sweep: name, or folder.")
    ] = None,
) -> None:
    """Sweep temperatures and concept spaces on the demo's world: six short trainings."""
    from lssl_ray.demo.sweep_job import run_demo_sweep

    with open_display() as display:
        run_demo_sweep(folder, space=space, seed=seed, resume=resume, display=display)
