"""Label lists with their descriptions: what concept spaces are built from.

Two formats: a text file with one label per line, or YAML with `labels:` as a list of names or as
a mapping from name to its descriptions: a list, or `{static: [...], dynamic: [...]}`. A mapping
`provenance:` beside them says who wrote the file.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lssl_ray.errors import DataError

DESCRIPTION_KINDS = ("static", "dynamic")


@dataclass(frozen=True)
class Vocabulary:
    """Action labels and what each looks like.

    Attributes:
        labels: At least two distinct names.
        descriptions: Per label, short visual phrases (static ones first); all empty when there
            are none.
        provenance: Who wrote it, as its file says; no part of its identity.
    """

    labels: tuple[str, ...]
    descriptions: tuple[tuple[str, ...], ...]
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

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
    provenance: Mapping[str, Any] = {}
    if path.suffix.lower() in (".yaml", ".yml"):
        data = _load_mapping(text, path)
        entries, provenance = _parse_labels(data.get("labels"), path), data.get("provenance") or {}
        if not isinstance(provenance, dict):
            raise DataError(f"Label file {path}: `provenance:` must be a mapping.")
    else:
        lines = (line.strip() for line in text.splitlines())
        entries = [(line, ()) for line in lines if line and not line.startswith("#")]
    _check(entries, path)
    return Vocabulary(
        labels=tuple(label for label, _ in entries),
        descriptions=tuple(texts for _, texts in entries),
        provenance=provenance,
    )


def _load_mapping(text: str, path: Path) -> dict[str, Any]:
    """Safe YAML, refused when a label is there twice: the second would silently win."""
    # libyaml reads the bank ten times faster.
    loader = (yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)(text)
    try:
        root = loader.get_single_node()
        for key, node in root.value if isinstance(root, yaml.MappingNode) else ():
            if key.value == "labels" and isinstance(node, yaml.MappingNode):
                counts = Counter(str(name.value) for name, _ in node.value)
                if twice := [name for name, count in counts.items() if count > 1]:
                    raise DataError(f"Label file {path} has duplicate labels: {twice}.")
        data = loader.construct_document(root) if root is not None else None
    except yaml.YAMLError as error:
        raise DataError(f"Label file {path} is not valid YAML: {error}.") from error
    finally:
        loader.dispose()
    return data if isinstance(data, dict) else {}


def _parse_labels(labels: Any, path: Path) -> list[tuple[str, tuple[str, ...]]]:
    pairs: list[tuple[Any, Any]]
    if isinstance(labels, list):
        pairs = [(label, []) for label in labels]
    elif isinstance(labels, dict):
        pairs = list(labels.items())
    else:
        raise DataError(
            f"Label file {path} must hold `labels:` as a list of names, or as a mapping from each "
            "name to a list of descriptions (or to {static: [...], dynamic: [...]})."
        )
    entries = []
    for label, texts in pairs:
        texts = texts or []
        if isinstance(texts, dict) and set(texts) <= set(DESCRIPTION_KINDS):
            parts = [texts.get(kind) or [] for kind in DESCRIPTION_KINDS]
            if all(isinstance(part, list) for part in parts):
                texts = [item for part in parts for item in part]
        if not isinstance(label, str) or not isinstance(texts, list):
            raise DataError(
                f"Label file {path}: {label!r} must be a text with a list of descriptions, or with "
                "{static: [...], dynamic: [...]}; quote names that YAML reads as numbers or truth "
                "values."
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
