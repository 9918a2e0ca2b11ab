"""`lssl-ray embed` and `export`: what a model makes of a manifest, and the model itself, on disk.

What needs torch is imported by the verb.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lssl_ray.cli_use import (
    DeviceOption,
    LabelsFileOption,
    LabelsOption,
    ModelOption,
    WeightsOption,
    load_shown,
    read_labels,
)
from lssl_ray.config import load_config
from lssl_ray.display import open_display
from lssl_ray.errors import ConfigError

if TYPE_CHECKING:
    from lssl_ray.embedding_files import EmbeddedVideo, EmbeddingSource
    from lssl_ray.inference import VideoModel
    from lssl_ray.video.manifest import Manifest

_CLUSTER_SECTION = "cluster."


def embed(
    manifest: Annotated[Path, typer.Argument(help="Manifest from lssl-ray data index.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of embeddings.")],
    local: Annotated[bool, typer.Option("--local", help="One process without Ray.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="cluster.num_workers=4 and its like."),
    ] = None,
    retry_bad: Annotated[
        bool, typer.Option("--retry-bad", help="Try again the videos that gave no frames.")
    ] = False,
    rows_per_part: Annotated[int, typer.Option(min=1, help="Videos per Parquet file.")] = 256,
    weights: WeightsOption = None,
    device: DeviceOption = None,
) -> None:
    """Embed every video of a manifest into Parquet files; run again, it does only what is missing.

    A video that gives no frames is a row with its reason.
    """
    with open_display() as display:
        from lssl_ray.commands import logging_to, sigterm_as_exit
        from lssl_ray.embedding import describe_source, embed_locally, embed_manifest
        from lssl_ray.embedding_files import LOG_FILE
        from lssl_ray.video.manifest import load_manifest

        if device is not None and not local:
            raise ConfigError("--device is for --local; on Ray say --set cluster.use_gpu=true.")
        videos = load_manifest(str(manifest))
        place, file = _as_absolute(model), None if weights is None else _as_absolute(weights)
        loaded = load_shown(display, place, file, device if local else "cpu")
        source = describe_source(loaded, source=place, weights=file)
        encode: Callable[[Manifest], Iterator[EmbeddedVideo]] = partial(embed_locally, loaded)
        if not local:
            encode = _prepare_ray(manifest, out, overrides or [], source, loaded)
        display.show_phase("Embedding")
        with logging_to(out / LOG_FILE), sigterm_as_exit():
            report = embed_manifest(
                videos,
                out,
                manifest_path=str(manifest.absolute()),
                source=source,
                encode=encode,
                rows_per_part=rows_per_part,
                retry_bad=retry_bad,
                on_progress=lambda done, total, bad: display.show_count(done, total, f"{bad} bad"),
            )
        new = report.num_embedded + sum(report.bad_by_reason.values())
        display.show_lines(
            f"{report.num_embedded} of {new} new videos embedded in {report.seconds:.1f} s; "
            f"{report.num_known} of {report.num_videos} were there already",
            *(f"  bad: {reason} {count}" for reason, count in report.bad_by_reason.items()),
            f"Embeddings: {out}",
        )


def export(
    model: Annotated[str, typer.Argument(help="What to export: a run, checkpoint, CLIP, ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    layout: Annotated[
        Literal["folder", "open_clip", "mlflow"],
        typer.Option("--format", help="Whole model; image CLIP without time; model to serve."),
    ] = "folder",
    labels: LabelsOption = None,
    labels_file: LabelsFileOption = None,
    drop_temporal: Annotated[
        bool, typer.Option("--drop-temporal", help="open_clip: lose the temporal attention.")
    ] = False,
    measure: Annotated[
        list[str] | None, typer.Option(help="open_clip: a video to measure that loss on; repeat.")
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="mlflow: register the model under this name.")
    ] = None,
    tracking_uri: Annotated[
        str, typer.Option(help="mlflow: store to register in.")
    ] = "sqlite:///mlflow.db",
    weights: WeightsOption = None,
) -> None:
    """Write a model out of its run, to use, to share or to serve."""
    with open_display() as display:
        choices = read_labels(labels, labels_file)
        _check_export(layout, choices, drop_temporal, measure, register)
        from lssl_ray import export as exporting

        loaded = load_shown(display, model, weights, "cpu")
        command = shlex.join(["lssl-ray", "export", model, "--format", layout, "--out", str(out)])
        display.show_phase("Exporting")
        if layout == "open_clip":
            lost = exporting.export_open_clip(
                loaded, out, drop_temporal=drop_temporal, command=command, measure_on=measure or ()
            )
            if not exporting.is_frame_average(loaded.parts.encoder):
                display.show_lines("WARNING: the temporal attention is NOT in this export.")
            if lost is not None:
                display.show_lines(
                    f"Cosine of features with and without time on {lost.num_videos} videos: mean "
                    f"{lost.mean_cosine:.4f}, lowest {lost.min_cosine:.4f}"
                )
        elif layout == "mlflow":
            exporting.export_mlflow(loaded, out, labels=choices, command=command)
        else:
            exporting.export_folder(loaded, out, labels=choices, command=command)
        loaded.close()
        display.show_lines(f"Exported: {out}")
        if register is not None:
            from lssl_ray.tracking.mlflow import register_model_version

            uri = register_model_version(
                tracking_uri, name=register, path=out, experiment="lssl_ray"
            )
            display.show_lines(f"Registered: {uri} in {tracking_uri}")


def _as_absolute(source: str) -> str:
    """A path as Ray's workers, which have another working directory, find it; names stay."""
    prefix, colon, path = source.rpartition("local-dir:")
    return f"{colon}{os.path.abspath(path)}" if os.path.exists(path) and not prefix else source


def _prepare_ray(
    manifest: Path,
    out: Path,
    overrides: Sequence[str],
    source: "EmbeddingSource",
    model: "VideoModel",
) -> "Callable[[Manifest], Iterator[EmbeddedVideo]]":
    """Rows through Ray, which starts only when there is a row to compute.

    Raises:
        ConfigError: A setting of another section, or an impossible one.
        ClusterError: The embeddings would not outlive the job.
    """
    wrong = [item for item in overrides if not item.startswith(_CLUSTER_SECTION)]
    if wrong:
        raise ConfigError(f"--set {wrong[0]}: embedding takes settings of the cluster only.")
    # A configuration is a whole; what the other sections say is not read here.
    rest = ["clip.model='local-dir:unread'", "concepts.labels=unread"]
    config = load_config(None, [*rest, f"data.manifest={json.dumps(str(manifest))}", *overrides])
    from lssl_ray.cluster.embedding import embed_on_ray
    from lssl_ray.cluster.required_paths import require_lasting_embeddings

    require_lasting_embeddings(out.absolute())
    return partial(embed_on_ray, config, source, model.parts.decoding)


def _check_export(
    layout: str,
    labels: Sequence[str] | None,
    drop_temporal: bool,
    measure: Sequence[str] | None,
    register: str | None,
) -> None:
    """Options that a format would ignore are refused."""
    given = {
        "--labels": ("folder mlflow", labels),
        "--drop-temporal": ("open_clip", drop_temporal),
        "--measure": ("open_clip", measure),
        "--register": ("mlflow", register),
    }
    for option, (formats, value) in given.items():
        if value and layout not in formats.split():
            raise ConfigError(f"{option} has no part in --format {layout}; it is for {formats}.")
