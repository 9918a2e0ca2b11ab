"""What evaluation beside training costs training: steps per second with and without, in turns.

On the demo's world without Ray; training seconds leave out what the end of a run waits for.

    python bench/evaluation_beside.py --steps 60 --rounds 3
"""

import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from lssl_ray import commands
from lssl_ray.demo.job import RECIPE, DemoInputs, DemoSize, prepare_demo
from lssl_ray.display import RunDisplay, open_display

BESIDE = (
    "data.hold_back=40",
    "evaluation.every_checkpoints=1",
    "evaluation.best=validation/validation/zero_shot",
)


def main(
    steps: Annotated[int, typer.Option(help="Steps per run.")] = 60,
    rounds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 20,
    videos: Annotated[int, typer.Option(help="Validation videos.")] = 80,
    threads: Annotated[int, typer.Option(help="Torch threads of training.")] = 1,
    folder: Annotated[Path | None, typer.Option(help="Kept; default: a temporary one.")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as temporary, open_display() as display:
        place = (folder or Path(temporary)).absolute()
        size = DemoSize(num_train=240, num_selection=16, num_validation=videos)
        inputs = prepare_demo(place, size=size, seed=0, display=display)
        settings = [
            "tracking.uri=null",
            f"run.folder={json.dumps(str(place / 'runs'))}",
            f"optim.max_steps={steps}",
            f"run.checkpoint_every={checkpoint_every}",
            f"cluster.cpus_per_worker={threads}",
        ]
        seconds: dict[str, list[float]] = {"without": [], "beside": []}
        for number in range(rounds):
            for kind, more in (("without", BESIDE[:1]), ("beside", BESIDE)):
                summary = run(inputs, [*settings, *more], f"{kind}-{number}", display)
                seconds[kind].append(summary["train_seconds"])
                taken = [point["seconds"] for point in summary["validation"]["points"]]
                typer.echo(f"{kind} {number}: {steps / seconds[kind][-1]:.3f} steps/s, {taken} s")
        rates = {kind: [steps / one for one in found] for kind, found in seconds.items()}
        for kind, found in rates.items():
            typer.echo(f"{kind}: {mean(found):.3f} steps/s ({min(found):.3f} to {max(found):.3f})")
        cost = 100 * (1 - mean(rates["beside"]) / mean(rates["without"]))
        typer.echo(f"cost: {cost:.1f} % of training's speed while it runs")


def run(inputs: DemoInputs, settings: list[str], name: str, display: RunDisplay) -> dict[str, Any]:
    """One run's summary; a run of that name is replaced."""
    return commands.train(
        config=RECIPE,
        overrides=[*inputs.build_overrides(evaluate_on="validation"), *settings],
        run_name=name,
        resume=None,
        overwrite=True,
        local=True,
        display=display,
    )


if __name__ == "__main__":
    typer.run(main)
