"""`lssl-ray evaluate`: protocols on labelled videos, with a report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lssl_ray.display import open_display

# As in `evaluating.request`, which takes seconds to import.
BenchmarkName = Literal["own", "ucf101", "hmdb51", "kinetics400"]


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Run, checkpoint or exported folder; `clip` (with --config); open_clip name."
        ),
    ],
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests of labelled videos.")
    ],
    protocols: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            help="zero_shot (default), transductive, linear_probe, knn, few_shot; repeat for more.",
        ),
    ] = None,
    benchmark: Annotated[
        BenchmarkName,
        typer.Option(help="Whose labels and splits count; own: those of the manifest."),
    ] = "own",
    train_manifests: Annotated[
        list[Path] | None,
        typer.Option(
            "--train-manifest",
            help="Labelled videos that teach probes, for kinetics400; repeat for more.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Official split 1, 2, 3 or all; with own, the split to score."),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames per temporal clip.")] = None,
    clips: Annotated[int, typer.Option(help="Temporal clips per video.")] = 1,
    crops: Annotated[
        Literal["1", "3"], typer.Option(help="Spatial crops per clip, along the longer side.")
    ] = "1",
    size: Annotated[int | None, typer.Option(help="Height and width of a view, px.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Label file or bank:NAME; default: the labels trained with.")
    ] = None,
    interpolate: Annotated[
        float | None, typer.Option(help="Share of the adapted weights: 0 is CLIP, 1 adapted.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep-interpolation", help="Zero-shot top-1 over that share.")
    ] = False,
    skip_unlabelled: Annotated[
        bool, typer.Option("--skip-unlabelled", help="Leave videos without label out, counted.")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of this evaluation.")] = "evaluation",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Report folder; default: evaluation/NAME.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of kept features; default: the run's features/.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Extract anew, and keep nothing.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Recipe that names the CLIP of `clip`.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: a.b=c."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="CLIP's weights: open_clip tag or local file.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="One process without Ray: for debugging.")
    ] = False,
) -> None:
    """Accuracy of CLIP and of a run's adapted model on labelled videos, with a report.

    Writes report.html, report.md and report.json, and adds them to the run in MLflow.
    """
    with open_display() as display:
        # Costs seconds; help and wrong options come at once.
        from lssl_ray.evaluating import EvaluationRequest, run_evaluation

        request = EvaluationRequest(
            model=model,
            manifests=tuple(manifests),
            protocols=tuple(protocols or ("zero_shot",)),
            benchmark=benchmark,
            train_manifests=tuple(train_manifests or ()),
            name=name,
            split=split,
            num_frames=frames,
            num_clips=clips,
            num_crops=3 if crops == "3" else 1,
            size=size,
            labels=labels,
            interpolate=interpolate,
            sweep=sweep,
            skip_unlabelled=skip_unlabelled,
            out=out,
            cache=cache,
            use_cache=not no_cache,
            config=config,
            overrides=tuple(overrides or ()),
            weights=weights,
            local=local,
        )
        run_evaluation(request, display=display)
