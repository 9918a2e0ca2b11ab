"""The `lssl-ray` command: thin verbs over the same functions that `jobs/` calls.

What needs torch is imported by the verb that needs it: help and refusals come at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lssl_ray.cli_atlas import atlas
from lssl_ray.cli_concepts import concepts_app
from lssl_ray.cli_data import data_app
from lssl_ray.cli_doctor import doctor
from lssl_ray.cli_evaluate import evaluate
from lssl_ray.cli_export import embed, export
from lssl_ray.cli_plan import plan
from lssl_ray.cli_sweep import demo_sweep, sweep
from lssl_ray.cli_track import track_app
from lssl_ray.cli_use import predict, search
from lssl_ray.config import dump_config, load_config
from lssl_ray.config.loading import describe_schema
from lssl_ray.display import open_display

app = typer.Typer(
    help="Adapt an image CLIP to video with no per-video labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(concepts_app, name="concepts")
app.add_typer(track_app, name="track")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Recipe (YAML), or a run's run_config.yaml.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c.")
]
LocalOption = Annotated[
    bool, typer.Option("--local", help="One process without Ray: for debugging.")
]


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where world, CLIP and runs go.")] = Path("demo"),
    small: Annotated[bool, typer.Option(help="A shortened run, to see that it works.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of world, CLIP and training.")] = 0,
    local: LocalOption = False,
) -> None:
    """Make a small world of videos, adapt a tiny CLIP to it, show before and after."""
    from lssl_ray.demo.job import run_demo

    with open_display() as display:
        run_demo(folder, small=small, seed=seed, local=local, display=display)


@app.command()
def train(
    config: ConfigOption = None,
    overrides: SetOption = None,
    run_name: Annotated[str | None, typer.Option(help="Name of the run and its folder.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go on with a run: its name, or its folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Throw away a run of that name first.")] = False,
    local: LocalOption = False,
) -> None:
    """Adapt CLIP to the videos of a manifest; evaluate before and after."""
    from lssl_ray import commands

    with open_display() as display:
        commands.train(
            config=config,
            overrides=overrides or [],
            run_name=run_name,
            resume=resume,
            overwrite=overwrite,
            local=local,
            display=display,
        )


@config_app.command("show")
def config_show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the resolved configuration; it is valid as --config."""
    with open_display():
        typer.echo(dump_config(load_config(config, overrides or [])), nl=False)


@config_app.command("fields")
def config_fields() -> None:
    """List every setting with its default and meaning."""
    typer.echo(describe_schema(), nl=False)


for verb in (doctor, plan, sweep, demo_sweep, evaluate, atlas, predict, embed, search, export):
    app.command()(verb)

main: Callable[[], None] = app

if __name__ == "__main__":
    main()
