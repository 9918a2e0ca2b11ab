"""The report of an evaluation: a page, the same as Markdown, and JSON for programs.

Figures come in; nothing is computed here but pictures and roundings. Not here: what a terminal
shows (`evaluating.showing`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lssl_ray.errors import DataError
from lssl_ray.evaluation.confusion import compute_confusion
from lssl_ray.evaluation.outcome import Outcome
from lssl_ray.evaluation_page.markdown import render_markdown
from lssl_ray.evaluation_page.page import render_page
from lssl_ray.evaluation_pictures import draw_confusion
from lssl_ray.whole_files import write_whole

__all__ = ["write_evaluation_report"]


def write_evaluation_report(
    report: Mapping[str, Any], outcomes: Sequence[Outcome], folder: Path
) -> tuple[Path, Path, Path]:
    """Write `report.html`, `report.md`, `report.json` and the confusion pictures.

    Args:
        report: What `lssl-ray evaluate` found, as JSON holds it.
        outcomes: The results in it.
        folder: Made if needed; an earlier report there is replaced.

    Returns:
        The page's path, the Markdown's and the JSON's.

    Raises:
        DataError: A file can't be written.
    """
    pictures = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for outcome in pick_shown(outcomes):
            for model, result in outcome.main.results.items():
                path = folder / f"confusion_{outcome.slug}_{model}.png"
                title = f"{outcome.title}, {model}: {outcome.main.name}"
                draw_confusion(compute_confusion(result), path, title=title)
                pictures[outcome.slug, model] = path
    except OSError as error:
        raise _refuse(folder, error) from error
    paths = tuple(folder / f"report.{kind}" for kind in ("html", "md", "json"))
    page = render_page(report, shown=[one.slug for one in pick_shown(outcomes)], pictures=pictures)
    _write_text(paths[0], page)
    _write_text(paths[1], render_markdown(report))
    _write_text(paths[2], json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return paths[0], paths[1], paths[2]


def pick_shown(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome per protocol to show classes of: the last, which has seen most labels."""
    return list({outcome.protocol: outcome for outcome in outcomes}.values())


def _write_text(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise _refuse(path, error) from error


def _refuse(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: the report can't be written ({error.strerror or error}); choose another place "
        "with --out."
    )
