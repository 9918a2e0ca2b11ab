"""`lssl-ray plan`: what a run will take, before it is paid for."""

from pathlib import Path
from typing import Annotated

import typer

from lssl_ray.display import open_display


def plan(
    config: Annotated[
        Path | None, typer.Option("--config", help="Recipe (YAML), or a run's run_config.yaml.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Videos to measure and to count; default: the recipe's.")
    ] = None,
    train_nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes that train; without these five, this machine.")
    ] = None,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=0, help="GPUs, and workers, of such a node; 0: on cores.")
    ] = None,
    decode_nodes: Annotated[
        int | None, typer.Option(min=0, help="Nodes that only decode; 0: the training nodes do.")
    ] = None,
    cores_per_node: Annotated[
        int | None, typer.Option(min=1, help="Cores of either kind; default: as here.")
    ] = None,
    network_gbit: Annotated[
        float | None, typer.Option(min=0.001, help="Of a node, Gbit/s each way.  [default: 10]")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="To measure for.")] = 60.0,
    step_seconds: Annotated[
        float | None, typer.Option(min=1e-6, help="A worker's step, where no GPU is to time it.")
    ] = None,
    gpu_tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="Instead: what a GPU reaches in it, 10^12 operations/s."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure there.")
    ] = None,
) -> None:
    """Estimate clips/s, hours and the slowest part of a run on this machine or a cluster.

    Measures decoding and the training step here with the run's own recipe, videos and model.
    """
    with open_display() as display:
        # Costs seconds; help and wrong options come at once.
        from lssl_ray.planning.report import build_table, describe_plan, write_json
        from lssl_ray.planning.request import PlanRequest, compute_plan

        request = PlanRequest(
            config=config,
            overrides=tuple(overrides or ()),
            manifest=manifest,
            train_nodes=train_nodes,
            gpus_per_node=gpus_per_node,
            decode_nodes=decode_nodes,
            cores_per_node=cores_per_node,
            network_gbit=network_gbit,
            seconds=seconds,
            step_seconds=step_seconds,
            gpu_tflops=gpu_tflops,
        )
        found = compute_plan(request, display=display)
        display.show_table(build_table(found))
        display.show_lines(*describe_plan(found))
        if json_file is not None:
            write_json(found, json_file)
            display.show_lines(f"All figures: {json_file}")
