"""`lssl-ray predict` and `search`: asking a model about videos from the command line.

A *model* is what `lssl_ray.load_model` takes. What needs torch is imported by the verb.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from lssl_ray.concepts.bank import load_labels
from lssl_ray.display import RunDisplay, open_display
from lssl_ray.errors import ConfigError
from lssl_ray.whole_files import write_whole

if TYPE_CHECKING:
    import numpy as np

    from lssl_ray.inference import VideoModel
    from lssl_ray.predictions import Prediction
    from lssl_ray.search import Hit, SearchResult

EXIT_BAD_FILES = 1
_BAR_WIDTH = 20

ModelOption = Annotated[
    str,
    typer.Option(help="Folder of a run, checkpoint or export; an open_clip name; local-dir:PATH."),
]
WeightsOption = Annotated[
    str | None, typer.Option(help="CLIP's weights: a file or tag for a name, a file for a run.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="As torch names it; default: a GPU where there is one.")
]
LabelsOption = Annotated[
    str | None, typer.Option(help="Labels to choose from, separated by commas.")
]
LabelsFileOption = Annotated[
    str | None, typer.Option(help="Label file, or bank:NAME (bank:kinetics400, ...).")
]
PictureOption = Annotated[
    Path | None, typer.Option(help="Draw frames beside what was found, as a PNG.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.")]


def predict(
    files: Annotated[list[str], typer.Argument(help="Video files.")],
    model: ModelOption,
    labels: LabelsOption = None,
    labels_file: LabelsFileOption = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels per video.")] = 5,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames per video; default: the model's own.")
    ] = None,
    json_out: JsonOption = None,
    picture: PictureOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
) -> None:
    """Say which labels fit videos best; without labels, of those the model was trained with.

    A file that gives no frames is listed with its reason, and the exit code is 1.
    """
    with open_display() as display:
        choices = read_labels(labels, labels_file)
        loaded = load_shown(display, model, weights, device)
        choices = choices or loaded.labels
        if choices is None:
            raise ConfigError(
                f"{model} was trained with no labels that it knows; give --labels 'a, b, c', or "
                "--labels-file FILE or bank:NAME."
            )
        display.show_phase("Classifying")
        results: list[Prediction] = []
        for done, path in enumerate(files, start=1):
            results += loaded.classify(path, choices, top_k=top_k, num_frames=frames)
            num_bad = sum(result.failure is not None for result in results)
            display.show_count(done, len(files), f"{num_bad} bad")
        display.show_table(_tabulate_predictions(results))
        if json_out is not None:
            _write_json(json_out, _describe_predictions(loaded, choices, results))
            display.show_lines(f"Written: {json_out}")
        if picture is not None:
            _draw_predictions(display, loaded, results, picture, num_frames=frames)
        loaded.close()
        if num_bad:
            display.show_lines(f"{num_bad} of {len(files)} files gave no frames.")
            raise typer.Exit(EXIT_BAD_FILES)


def search(
    embeddings: Annotated[Path, typer.Option(help="Folder from lssl-ray embed.")],
    model: ModelOption,
    text: Annotated[
        str | None, typer.Argument(help="What to look for: 'a person doing a handstand'.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="Look for videos like this one instead.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Videos to show.")] = 10,
    method: Annotated[
        Literal["auto", "exact", "index"],
        typer.Option(help="auto takes an index from 200,000 videos on."),
    ] = "auto",
    json_out: JsonOption = None,
    picture: PictureOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
) -> None:
    """Find the embedded videos nearest to a text, or to another video."""
    with open_display() as display:
        if (text is None) == (like is None):
            raise ConfigError("Give either a text to look for, or --like VIDEO.")
        from lssl_ray.search import open_embeddings, search_embeddings

        loaded = load_shown(display, model, weights, device)
        provenance = open_embeddings(embeddings, digest=loaded.digest)
        if like is not None:
            num_frames = provenance["model"]["num_frames"]
            query = loaded.encode_video(like, num_frames=num_frames).require_all()[0]
        else:
            assert text is not None  # one of the two is given
            query = loaded.encode_text(text)[0]
        result = search_embeddings(
            embeddings,
            query,
            top_k=top_k,
            method=method,
            without_path=None if like is None else os.path.abspath(like),
        )
        display.show_table(_tabulate_hits(result))
        if result.note is not None:
            display.show_lines(f"Note: {result.note}")
        if json_out is not None:
            _write_json(json_out, {"query": text or like, "hits": [vars(h) for h in result.hits]})
            display.show_lines(f"Written: {json_out}")
        if picture is not None:
            _draw_hits(display, loaded, result.hits, picture, title=text or f"like {like}")
        loaded.close()


def load_shown(
    display: RunDisplay, model: str, weights: str | None, device: str | None
) -> "VideoModel":
    """Load a model, saying so."""
    display.show_phase(f"Loading {model}")
    from lssl_ray.inference import load_model

    return load_model(model, weights=weights, device=device)


def read_labels(labels: str | None, labels_file: str | None) -> tuple[str, ...] | None:
    """The labels of `--labels` or `--labels-file`; None without either.

    Raises:
        ConfigError: Both, or nothing between two commas.
    """
    if labels is not None and labels_file is not None:
        raise ConfigError("Give --labels or --labels-file, not both.")
    if labels_file is not None:
        return load_labels(labels_file).labels
    if labels is None:
        return None
    names = tuple(name.strip() for name in labels.split(","))
    if not all(names):
        raise ConfigError(f"--labels {labels!r} has an empty label; write 'a, b, c'.")
    return names


def _tabulate_predictions(results: "Sequence[Prediction]") -> Table:
    table = Table("video", "label", "score", "")
    for result in results:
        if result.failure is not None:
            why = f"{result.failure.reason}: {result.failure.detail}"
            table.add_row(_as_path(result.path), Text(why, style="red"), "", "")
        name = result.path
        for label, score in zip(result.labels, result.scores, strict=True):
            table.add_row(_as_path(name), Text(label), f"{score:.3f}", _draw_bar(score))
            name = ""
        table.add_section()
    return table


def _tabulate_hits(result: "SearchResult") -> Table:
    how = {"exact": "all of them compared", "index": "through an index"}[result.method]
    title = f"Nearest of {result.num_videos} videos, {how}"
    table = Table("", "video", "label", "cosine", "", title=title)
    best = max((hit.score for hit in result.hits), default=1.0)
    for rank, hit in enumerate(result.hits, start=1):
        bar = _draw_bar(max(0.0, hit.score) / max(best, 1e-9))
        label = Text(hit.label or "")
        table.add_row(str(rank), _as_path(hit.path), label, f"{hit.score:.4f}", bar)
    return table


def _as_path(path: str) -> Text:
    """Long ones go on in the next line: their ends tell them apart."""
    return Text(path, overflow="fold")


def _draw_bar(share: float) -> Bar:
    return Bar(size=1.0, begin=0.0, end=share, width=_BAR_WIDTH)


def _describe_predictions(
    model: "VideoModel", labels: Sequence[str], results: "Sequence[Prediction]"
) -> dict[str, Any]:
    videos = []
    for result in results:
        pairs = zip(result.labels, result.scores, strict=True)
        failure = result.failure
        videos.append(
            {
                "path": result.path,
                "top": [{"label": label, "score": score} for label, score in pairs],
                "reason": None if failure is None else failure.reason,
                "detail": None if failure is None else failure.detail,
            }
        )
    return {"model": model.name, "digest": model.digest, "labels": labels, "videos": videos}


def _draw_predictions(
    display: RunDisplay,
    model: "VideoModel",
    results: "Sequence[Prediction]",
    path: Path,
    *,
    num_frames: int | None,
) -> None:
    from lssl_ray.sheets import MAX_ROWS, SheetRow, draw_sheet

    rows = []
    for result in results[:MAX_ROWS]:
        note = "" if result.failure is None else f"no frames: {result.failure.reason}"
        frames = None if note else _find_frames(model, result.path, num_frames)
        rows.append(SheetRow(result.path, frames, result.labels, result.scores, note))
    draw_sheet(rows, path, title=f"{model.name}: best labels")
    display.show_lines(f"Picture: {path}", *_describe_rest(len(results), MAX_ROWS))


def _draw_hits(
    display: RunDisplay, model: "VideoModel", hits: "Sequence[Hit]", path: Path, *, title: str
) -> None:
    from lssl_ray.sheets import MAX_ROWS, SheetRow, draw_sheet

    rows = []
    for rank, hit in enumerate(hits[:MAX_ROWS], start=1):
        frames = _find_frames(model, hit.path, None)
        name = f"{rank}. {hit.video_id}"
        note = "gives no frames now" if frames is None else ""
        scores = (max(0.0, hit.score),)
        rows.append(SheetRow(name, frames, (hit.label or "cosine",), scores, note))
    draw_sheet(rows, path, title=title)
    display.show_lines(f"Picture: {path}", *_describe_rest(len(hits), MAX_ROWS))


def _find_frames(model: "VideoModel", path: str, num_frames: int | None) -> "np.ndarray | None":
    from lssl_ray.types import ClipFailure

    frames = model.decode_video(path, num_frames=num_frames)
    return None if isinstance(frames, ClipFailure) else frames


def _describe_rest(count: int, limit: int) -> list[str]:
    return [f"  the first {limit} of {count} are on it"] if count > limit else []


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
