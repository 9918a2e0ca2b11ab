"""The model card of an export: what the model is, what was measured, how to use it."""

import json
from pathlib import Path
from typing import Any

from lssl_ray.errors import CheckpointError
from lssl_ray.folder import RunFolder
from lssl_ray.inference import VideoModel
from lssl_ray.model_sources import shorten_clip_name

_USE_FOLDER = """```python
import lssl_ray

model = lssl_ray.load_model("{name}")
model.classify(["video.mp4"], ["archery", "diving"])
```"""
_USE_OPEN_CLIP = """```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}")
tokenizer = open_clip.get_tokenizer("local-dir:{name}")
```"""


def write_model_card(
    model: VideoModel, path: Path, *, name: str, command: str, note: str | None
) -> None:
    """Write it as Markdown.

    Args:
        model: The model that is exported.
        path: The card.
        name: The exported folder's name.
        command: How the export was made.
        note: What an image CLIP of the model is worth; None for the whole model.

    Raises:
        CheckpointError: The run's summary can't be read.
    """
    parts, clip = model.parts, model.clip
    summary = _load_summary(parts.run_folder)
    kind = "a video model" if note is None else "an image CLIP"
    use = (_USE_FOLDER if note is None else _USE_OPEN_CLIP).format(name=name)
    lines = [
        f"# {model.name}",
        "",
        f"{shorten_clip_name(clip.name)} as {kind}, written by lssl_ray: `{command}`",
        "",
        *([note, ""] if note is not None else []),
        use,
        "",
        "| | |",
        "|---|---|",
        f"| view | {parts.view.num_frames} frames evenly over the video, largest centred square, "
        f"{parts.view.size} px |",
        f"| embedding | {parts.encoder.embedding_dim} numbers, unit length |",
        f"| CLS token | {parts.encoder.cls} |",
        f"| prompts | {' / '.join(parts.templates)} |",
        f"| digest of the video encoder | `{model.digest}` |",
        f"| digest of the CLIP it came from | `{clip.digest}` |",
        "",
        *_describe_results(summary),
        "The weights of the CLIP keep their own licence, and so does what was made from them.",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _load_summary(run_folder: Path | None) -> dict[str, Any] | None:
    if run_folder is None or not RunFolder(run_folder).summary.is_file():
        return None
    path = RunFolder(run_folder).summary
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); remove it to export.") from error
    return summary


def _describe_results(summary: dict[str, Any] | None) -> list[str]:
    if summary is None:
        return ["No run's summary came with this model: nothing measured is known of it.", ""]
    lines = [
        f"Trained for {summary['steps']} of {summary['num_steps']} steps on "
        f"{summary['clips_trained']} clips of {summary['videos']} videos, seed {summary['seed']}, "
        f"lssl_ray {summary['versions']['lssl_ray']}, commit {summary['git_commit'] or 'unknown'}.",
        "",
    ]
    if summary["zero_shot"]:
        lines += [
            "Zero-shot top-1 of the whole video model, frame-averaged CLIP against adapted, %, at "
            "the end of its run:",
            "",
            "| split | videos | CLIP | adapted |",
            "|---|--:|--:|--:|",
        ]
        for split, result in summary["zero_shot"].items():
            figures = f"{result['clip_top1']:.1f} | {result['adapted_top1']:.1f}"
            lines.append(f"| {split} | {result['videos']} | {figures} |")
        lines.append("")
    return lines
