"""`lssl-ray data`: make manifests of videos, and check them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lssl_ray.display import open_display

data_app = typer.Typer(help="Make and check manifests of videos.", no_args_is_help=True)

EXIT_WRONG = 1

WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Files probed at a time; default: one per core.")
]
DeadlineOption = Annotated[float, typer.Option(help="Seconds one file may take.")]
EngineOption = Annotated[
    Literal["auto", "local", "ray"],
    typer.Option(help="Where files are probed; auto: Ray for many files or with RAY_ADDRESS."),
]


@data_app.command("index")
def data_index(
    paths: Annotated[
        list[str],
        typer.Argument(help="Folders, files, patterns, lists (CSV, text), or URIs of these."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write.")] = Path(
        "manifest.parquet"
    ),
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="none, folders (the parent folder's name), or a list: path,label CSV, Kinetics, "
            "UCF101, HMDB51; repeat for more lists."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the videos that no list gives one.")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(help="Where relative paths in lists start; default: the list's folder."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="A run's quarantine.jsonl: its videos become bad; repeat for more."),
    ] = None,
    reader: Annotated[
        Literal["auto", "decord", "torchcodec", "pyav"],
        typer.Option(help="Who decodes; auto: the best for each file."),
    ] = "auto",
    engine: EngineOption = "auto",
    workers: WorkersOption = None,
    deadline: DeadlineOption = 20.0,
    report: Annotated[bool, typer.Option(help="Write a page about the videos beside it.")] = True,
) -> None:
    """Probe videos and write a manifest; damaged and missing files are rows with a reason.

    Run again, it probes only new and changed files; killed, it goes on where it was.
    """
    from lssl_ray import indexing

    with open_display() as display:
        indexing.index(
            paths,
            out,
            labels=labels or "none",
            split=split,
            root=root,
            exclude=exclude or (),
            reader=reader,
            engine=engine,
            num_workers=workers,
            deadline_seconds=deadline,
            with_report=report,
            display=display,
        )


@data_app.command("check")
def data_check(
    manifest: Annotated[Path, typer.Argument(help="Manifest to check.")],
    decode: Annotated[bool, typer.Option("--decode", help="Probe every video again.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write the corrected manifest.")
    ] = None,
    engine: EngineOption = "auto",
    workers: WorkersOption = None,
    deadline: DeadlineOption = 20.0,
) -> None:
    """Compare a manifest with its files: missing, changed, newly bad, newly good.

    Changed files are probed again. Exit code 1: a usable video is not as the manifest says.
    """
    from lssl_ray import indexing

    with open_display() as display:
        found = indexing.check(
            manifest,
            decode=decode,
            out=out,
            engine=engine,
            num_workers=workers,
            deadline_seconds=deadline,
            display=display,
        )
    if not found.is_right:
        raise typer.Exit(EXIT_WRONG)
