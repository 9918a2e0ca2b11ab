"""The data path beside its peers: same files, same views, same cores, in one run.

    python bench/input.py                                     # the main table, paper's views
    python bench/input.py --tables all --out runs/input.json  # and those named below
    python bench/input.py --videos 8 --passes 2 --clips 96 --recipe light   # a first look

The limit is a bare decoder loop in as many processes as cores; the peer is torch's `DataLoader`
around the same decoding; ours is the pipeline without a consumer, through to workers whose step
does nothing, without Ray, and under real training of the smallest CLIP. All ways decode the same
clips, in passes that take turns. A rate leaves out the first and the last batches of a pass (what
fills and empties the queues); what comes before the first batch is a column of its own. Files are
read once beforehand, so they come from the page cache. Run it on an idle machine: the caption
holds the load average.

`--tables` (comma-separated, or all): input, isolation, cpu, order, workers, rows, decoders.
"""

import math
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

TABLES = ("input", "isolation", "cpu", "order", "workers", "rows", "decoders")


def parse_tables(text: str) -> list[str]:
    """Comma-separated names of tables, or `all`."""
    names = list(TABLES) if text == "all" else text.split(",")
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(TABLES)}, all")
    return names


def main(
    folder: Annotated[Path, typer.Option(help="Where videos are encoded and runs go.")] = Path(
        "runs/input_bench"
    ),
    videos: Annotated[int, typer.Option(help="How many videos to encode.")] = 64,
    manifest: Annotated[
        Path | None, typer.Option(help="Measure on these indexed videos instead.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Views: paper, light or soak.")] = "paper",
    clips: Annotated[int, typer.Option(help="Clips of one pass.")] = 256,
    clips_per_batch: Annotated[int, typer.Option(help="Clips of one batch.")] = 8,
    passes: Annotated[int, typer.Option(help="Passes of each way.")] = 5,
    decoders: Annotated[int, typer.Option(help="Decoding processes; 0: one per core.")] = 0,
    train_steps: Annotated[int, typer.Option(help="Steps of real training; 0: none.")] = 30,
    tables: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "input",
    manifest_rows: Annotated[str, typer.Option(help="Of the table rows.")] = "100,10000",
    seconds: Annotated[int, typer.Option(help="Length of an encoded video.")] = 10,
    gop: Annotated[int, typer.Option(help="Frames between two key frames.")] = 250,
    out: Annotated[Path | None, typer.Option(help="JSON with every single figure.")] = None,
) -> None:
    # Imported here because every spawned process imports this file again, and pays for it.
    from input_chain import measure
    from input_files import VideoKind, prepare_videos, warm_page_cache, write_small_clip
    from input_report import format_markdown, write_json
    from input_setting import RECIPES, Setting, count_cores, describe_machine

    # Ended from outside, it must not leave its pools behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    names = parse_tables(tables)
    if recipe not in RECIPES:
        raise typer.BadParameter(f"{recipe}: choose from {', '.join(RECIPES)}")
    machine = describe_machine()
    console = Console(stderr=True)
    folder = folder.absolute()
    if manifest is None:
        console.print(f"{videos} videos in {folder}")
        kind = VideoKind(seconds=seconds, gop=gop)
        manifest = prepare_videos(folder, num_videos=videos, kind=kind, num_workers=count_cores())
    num_bytes = warm_page_cache(manifest)
    machine["files"] = f"{manifest.name}, {num_bytes / 2**20:.0f} MiB"
    write_small_clip(folder / "clip", image_size=RECIPES[recipe]["global"]["size"])
    setting = Setting(
        manifest=manifest.absolute(),
        folder=folder,
        recipe=recipe,
        clips_per_batch=clips_per_batch,
        num_batches=math.ceil(clips / clips_per_batch),
        num_decoders=decoders or count_cores(),
    )
    done = []
    for name in names:
        done.append(
            measure(
                name,
                setting,
                passes=passes,
                train_steps=train_steps,
                row_counts=[int(count) for count in manifest_rows.split(",")],
                report=console.print,
            )
        )
        print(f"{format_markdown(done[-1], machine)}\n", flush=True)
        if out is not None:
            write_json(out, done, machine)
    machine["load average after the end"] = f"{os.getloadavg()[0]:.1f}"
    if out is not None:
        write_json(out, done, machine)


if __name__ == "__main__":
    typer.run(main)
