"""Built concept spaces, kept by what they were made of: the same request embeds nothing again."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lssl_ray.concepts.space import (
    FORMAT_VERSION,
    ConceptSpace,
    Layout,
    build_concept_space,
    load_concept_space,
    save_concept_space,
)
from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.errors import DataError
from lssl_ray.model.clip import ClipModel


@dataclass(frozen=True)
class CachedSpace:
    """A concept space and where it is kept.

    Attributes:
        space: The space.
        path: Its file.
        is_hit: Whether the file was there before.
    """

    space: ConceptSpace
    path: Path
    is_hit: bool


def find_cache_folder(kind: str = "concept_spaces") -> Path:
    """`lssl_ray/KIND` in XDG_CACHE_HOME, or in `~/.cache` where that is not set."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative values ignored.
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "lssl_ray" / kind


def compute_space_key(
    vocabulary: Vocabulary,
    *,
    layout: Layout,
    templates: Sequence[str],
    description_templates: Sequence[str],
    clip_digest: str,
) -> str:
    """SHA-256 of all that decides a space's numbers, in hexadecimal."""
    parts = [
        FORMAT_VERSION,
        vocabulary.labels,
        vocabulary.descriptions,
        layout,
        list(templates),
        list(description_templates),
        clip_digest,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def build_cached_space(
    vocabulary: Vocabulary,
    clip: ClipModel,
    *,
    layout: Layout,
    templates: Sequence[str],
    description_templates: Sequence[str],
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> CachedSpace:
    """The space of a vocabulary, from the cache folder when it is there, else built and kept.

    Raises:
        ConfigError: A template without a `{}`.
        DataError: The file in the cache is damaged.
    """
    key = compute_space_key(
        vocabulary,
        layout=layout,
        templates=templates,
        description_templates=description_templates,
        clip_digest=clip.digest,
    )
    path = folder / f"{key}.safetensors"
    if path.exists():
        try:
            space = load_concept_space(path, clip_digest=clip.digest)
        except DataError as error:
            raise DataError(f"{error} It is a cache entry: delete it and build again.") from error
        # The same weights may have been reached by another path.
        return CachedSpace(replace(space, clip_name=clip.name), path, is_hit=True)
    space = build_concept_space(
        vocabulary,
        clip,
        layout=layout,
        templates=templates,
        description_templates=description_templates,
        on_progress=on_progress,
    )
    save_concept_space(space, path)
    return CachedSpace(space, path, is_hit=False)
