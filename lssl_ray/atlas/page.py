"""The atlas as one file: facts and pictures as data in it, drawn by a little script of ours.

Nothing is loaded from anywhere: the page's policy allows its own script by digest, and pictures
from itself. Labels, paths and descriptions come from strangers: they are data to the template and
texts to the script, which writes no markup.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps

from lssl_ray.errors import DataError
from lssl_ray.whole_files import write_whole

PAGE_BYTES = 30 * 2**20
NUM_EXCLUDED_SHOWN = 200
_MARKUP_BYTES = 64 * 2**10  # page, style and script together, with room
_SCRIPTS = ("page.js", "page_map.js")


def compute_picture_budget(facts: Mapping[str, Any], *, num_pictures: int) -> int:
    """Bytes that pictures may take so that the page stays below `PAGE_BYTES`.

    Args:
        facts: Those that will be on the page; they come first.
        num_pictures: How many pictures share the rest.
    """
    between = len('"",')
    taken = len(htmlsafe_json_dumps(facts)) + _MARKUP_BYTES + between * num_pictures
    return max(0, PAGE_BYTES - taken)


def write_atlas(facts: Mapping[str, Any], pictures: Sequence[str], page: Path) -> tuple[Path, Path]:
    """Write the page and its facts as JSON beside it.

    Args:
        facts: From `figures.compute_figures`, and what was made of what.
        pictures: A data URI for each of `facts["clips"]`; "" where there is none.
        page: Ends in `.html`; its folder is made if needed, an earlier atlas there is replaced.

    Returns:
        The page's path and the JSON's.

    Raises:
        DataError: A file can't be written.
    """
    data = page.with_suffix(".json")
    _write_text(page, render_page(facts, pictures))
    _write_text(data, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return page, data


def render_page(facts: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The atlas as HTML; arguments as in `write_atlas`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lssl_ray.atlas", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters["commas"] = lambda number: f"{number:,}"
    loader = environment.loader
    assert loader is not None
    script = "".join(loader.get_source(environment, name)[0] for name in _SCRIPTS)
    digest = hashlib.sha256(script.encode()).digest()
    drawn = ("num_top", "spaces", "confusions", "close_pairs", "map", "clips", "names")
    return environment.get_template("page.html").render(
        facts=facts,
        drawn={name: facts[name] for name in drawn},
        pictures=list(pictures),
        script=script,
        script_digest=base64.b64encode(digest).decode(),
        excluded_shown=facts["excluded_undecodable"]["videos"][:NUM_EXCLUDED_SHOWN],
        limit_mib=PAGE_BYTES // 2**20,
    )


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise DataError(
            f"{path}: the atlas can't be written ({error.strerror or error}); choose another "
            "place with -o."
        ) from error
