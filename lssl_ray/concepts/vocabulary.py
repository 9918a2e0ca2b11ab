"""Label lists with their descriptions: what concept spaces are built from.

Two formats: a text file with one label per line, or YAML with `labels:` as a list of names or as
a mapping from name to its descriptions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lssl_ray.errors import DataError


@dataclass(frozen=True)
class Vocabulary:
    """Action labels and what each looks like.

    Attributes:
        labels: At least two distinct names.
        descriptions: Per label, short visual phrases; all empty when there are none.
    """

    labels: tuple[str, ...]
    descriptions: tuple[tuple[str, ...], ...]

    @property
    def has_descriptions(self) -> bool:
        """Whether a description space can be built."""
        return any(self.descriptions)


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a label file.

    Raises:
        DataError: Missing, malformed, fewer than two labels, duplicates, or descriptions for some
            labels only.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Label file {path} can't be read: {error}.") from error
    if path.suffix.lower() in (".yaml", ".yml"):
        entries = _parse_yaml(text, path)
    else:
        lines = (line.strip() for line in text.splitlines())
        entries = [(line, ()) for line in lines if line and not line.startswith("#")]
    _check(entries, path)
    return Vocabulary(
        labels=tuple(label for label, _ in entries),
        descriptions=tuple(texts for _, texts in entries),
    )


def _parse_yaml(text: str, path: Path) -> list[tuple[str, tuple[str, ...]]]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"Label file {path} is not valid YAML: {error}.") from error
    labels = data.get("labels") if isinstance(data, dict) else None
    pairs: list[tuple[Any, Any]]
    if isinstance(labels, list):
        pairs = [(label, []) for label in labels]
    elif isinstance(labels, dict):
        pairs = list(labels.items())
    else:
        raise DataError(
            f"Label file {path} must hold `labels:` as a list of names, or as a mapping from each "
            "name to a list of descriptions."
        )
    entries = []
    for label, texts in pairs:
        texts = texts or []
        if not isinstance(label, str) or not isinstance(texts, list):
            raise DataError(
                f"Label file {path}: {label!r} must be a text with a list of descriptions; quote "
                "names that YAML reads as numbers or truth values."
            )
        if not all(isinstance(item, str) and item.strip() for item in texts):
            raise DataError(f"Label file {path}: a description of {label!r} is no text.")
        entries.append((label.strip(), tuple(item.strip() for item in texts)))
    return entries


def _check(entries: list[tuple[str, tuple[str, ...]]], path: Path) -> None:
    names = [label for label, _ in entries]
    if len(names) < 2:
        raise DataError(
            f"Label file {path} holds {len(names)} label(s); a concept space needs at least two."
        )
    folded = [name.casefold() for name in names]
    duplicates = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if duplicates or "" in names:
        raise DataError(f"Label file {path} has empty or duplicate labels: {duplicates}.")
    without = [label for label, texts in entries if not texts]
    if without and len(without) < len(names):
        raise DataError(
            f"Label file {path} describes some labels but not {without[:5]} "
            f"({len(without)} in all); describe every label or none."
        )
