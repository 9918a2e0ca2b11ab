"""The index report: a page and a JSON file that say what a manifest holds and what is wrong in it.

Not here: making a manifest (`video.index`), what a terminal shows of it.
"""

import json
from pathlib import Path

from lssl_ray.errors import DataError
from lssl_ray.index_report.figures import compute_index_figures
from lssl_ray.index_report.page import render_page
from lssl_ray.video.index import IndexReport
from lssl_ray.video.manifest import Manifest
from lssl_ray.whole_files import write_whole

__all__ = ["write_index_report"]


def write_index_report(manifest: Manifest, report: IndexReport, stem: Path) -> tuple[Path, Path]:
    """Writes `STEM.report.html` for people and `STEM.report.json` for programs.

    Args:
        manifest: What was indexed or checked; counts of videos come from it.
        report: Counts that leave no trace in a manifest: duplicates, ignored files, time.
        stem: Both paths without `.report.*`; the folder is made if needed.

    Returns:
        The page's path and the JSON file's.

    Raises:
        DataError: A file can't be written.
    """
    figures = compute_index_figures(manifest, report)
    page, data = (stem.with_name(f"{stem.name}.report.{kind}") for kind in ("html", "json"))
    _write_text(page, render_page(figures))
    _write_text(data, json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return page, data


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise DataError(
            f"{path}: the report can't be written ({error.strerror or error}); choose another "
            "place or free some space."
        ) from error
