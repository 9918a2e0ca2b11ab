"""The files of a generation: the vocabulary with its provenance, and the list of what failed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lssl_ray.errors import ConfigError
from lssl_ray.generation.generator import Failure
from lssl_ray.generation.questions import Entries
from lssl_ray.whole_files import write_whole

WRITTEN_BY = "lssl-ray concepts generate"


def find_failed_path(out: Path) -> Path:
    """Where the failures of a vocabulary file are listed."""
    return out.with_name(f"{out.name}.failed.json")


def check_output(out: Path) -> None:
    """Says before any cost whether the vocabulary can be written; makes its folder.

    Raises:
        ConfigError: The folder can't be made, or a file is there that no generation wrote.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        text = out.read_text(encoding="utf-8") if out.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--out {out} can't be written: {error}.") from error
    if text is not None and f"written_by: {WRITTEN_BY}\n" not in text:
        raise ConfigError(
            f"--out {out} exists and was not written by `{WRITTEN_BY}`; choose another name or "
            "remove it."
        )


def write_vocabulary(out: Path, entries: Entries, *, provenance: Mapping[str, Any]) -> None:
    """Write labels and phrases as `lssl_ray.concepts.vocabulary` reads them."""
    data = {"provenance": {"written_by": WRITTEN_BY, **provenance}, "labels": entries}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    write_whole(out, text)


def write_failures(out: Path, failures: Sequence[Failure]) -> None:
    """List what did not come beside the vocabulary; an older list goes when nothing failed."""
    path = find_failed_path(out)
    if failures:
        rows = [asdict(failure) for failure in failures]
        write_whole(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    else:
        path.unlink(missing_ok=True)
