"""Concept spaces: text embeddings as the axes that a clip is scored on, and the file they live in.

A space is built once from labels (and their descriptions) by CLIP's frozen text tower; training
and evaluation only read the matrices. The file says what it was made of, and is refused by a run
whose CLIP differs.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.model.clip import ClipModel

FORMAT_VERSION = 1
TEXTS_PER_BATCH = 256
Layout = Literal["pooled", "full"]


@dataclass(frozen=True)
class ConceptSpace:
    """Category and description axes of one vocabulary, in one CLIP's joint space.

    Attributes:
        labels: The n action names; row i of `categories` is label i.
        categories: Unit-length rows, float32.
        description_texts: Each label's descriptions; empty tuples when there are none.
        descriptions: Unit-length rows, float32: one per label (`pooled`) or one per description
            (`full`); None without descriptions.
        link: 0/1 matrix [n, m] of the `full` layout; None for `pooled`.
        layout: How descriptions became rows.
        templates: What labels were put into before embedding.
        description_templates: Likewise for descriptions.
        clip_name: The CLIP that embedded them.
        clip_digest: Digest of its weights.
    """

    labels: tuple[str, ...]
    categories: Float[Tensor, "n embedding"]
    description_texts: tuple[tuple[str, ...], ...]
    descriptions: Float[Tensor, "m embedding"] | None
    link: Float[Tensor, "n m"] | None
    layout: Layout
    templates: tuple[str, ...]
    description_templates: tuple[str, ...]
    clip_name: str
    clip_digest: str


def build_concept_space(
    vocabulary: Vocabulary,
    clip: ClipModel,
    *,
    layout: Layout,
    templates: Sequence[str],
    description_templates: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> ConceptSpace:
    """Embed a vocabulary: CLIP's prompt ensembling for labels, the layout's rule for descriptions.

    Args:
        vocabulary: Labels and their descriptions.
        clip: Its text tower embeds.
        layout: How descriptions become rows.
        templates: Prompts for labels, averaged; `{}` is the label.
        description_templates: Likewise for descriptions.
        on_progress: Told how many prompts of how many are embedded, batch by batch.

    Raises:
        ConfigError: A template without a `{}`.
    """
    for template in (*templates, *description_templates):
        if template.count("{}") != 1:
            raise ConfigError(
                f"Prompt template {template!r} must hold exactly one {{}} where the text goes."
            )
    flat = [text for texts in vocabulary.descriptions for text in texts]
    num_label_prompts = len(vocabulary.labels) * len(templates)
    num_prompts = num_label_prompts + len(flat) * len(description_templates)

    def show(done: int) -> None:
        if on_progress is not None:
            on_progress(done, num_prompts)

    categories = embed_ensemble(vocabulary.labels, clip, templates=templates, on_batch=show)
    descriptions = link = None
    if vocabulary.has_descriptions:
        owner = torch.tensor([i for i, texts in enumerate(vocabulary.descriptions) for _ in texts])
        rows = embed_ensemble(
            flat,
            clip,
            templates=description_templates,
            on_batch=lambda done: show(num_label_prompts + done),
        )
        membership = F.one_hot(owner, len(vocabulary.labels)).T.float()  # [n, m]
        if layout == "pooled":
            descriptions = F.normalize(membership @ rows, dim=-1)
        else:
            descriptions, link = rows, membership
    return ConceptSpace(
        labels=vocabulary.labels,
        categories=categories,
        description_texts=vocabulary.descriptions,
        descriptions=descriptions,
        link=link,
        layout=layout,
        templates=tuple(templates),
        description_templates=tuple(description_templates),
        clip_name=clip.name,
        clip_digest=clip.digest,
    )


def embed_ensemble(
    texts: Sequence[str],
    clip: ClipModel,
    *,
    templates: Sequence[str],
    on_batch: Callable[[int], None] | None = None,
) -> Float[Tensor, "texts embedding"]:
    """CLIP's ensembling: each text through each template, normalise, average, normalise.

    `on_batch` is told how many prompts are done, batch by batch.
    """
    prompts = [template.format(text) for text in texts for template in templates]
    rows = []
    with torch.inference_mode():
        for start in range(0, len(prompts), TEXTS_PER_BATCH):
            tokens: Int[Tensor, "prompts context"] = clip.tokenize(
                prompts[start : start + TEXTS_PER_BATCH]
            )
            rows.append(F.normalize(clip.encode_text(tokens).float(), dim=-1))
            if on_batch is not None:
                on_batch(min(start + TEXTS_PER_BATCH, len(prompts)))
    embedded = torch.cat(rows).unflatten(0, (len(texts), len(templates)))  # [n, templates, E]
    return F.normalize(embedded.mean(dim=1), dim=-1).clone()


def save_concept_space(space: ConceptSpace, path: Path) -> None:
    """Write the space as one safetensors file with its provenance in the header: whole or not."""
    tensors = {
        "categories": space.categories,
        "descriptions": space.descriptions,
        "link": space.link,
    }
    provenance = {
        "version": FORMAT_VERSION,
        "labels": space.labels,
        "description_texts": space.description_texts,
        "layout": space.layout,
        "templates": space.templates,
        "description_templates": space.description_templates,
        "clip_name": space.clip_name,
        "clip_digest": space.clip_digest,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None},
            part,
            metadata={"lssl_ray.concept_space": json.dumps(provenance)},
        )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_concept_space(path: Path, *, clip_digest: str | None = None) -> ConceptSpace:
    """Read a space back, and refuse it when another CLIP embedded it.

    Args:
        path: A file written by `save_concept_space`.
        clip_digest: Digest of the CLIP in use; None skips the check.

    Raises:
        DataError: Not such a file, another version, or embedded by another CLIP.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {})["lssl_ray.concept_space"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{path} is not a concept space file: {error!r}.") from error
    provenance = json.loads(header)
    if provenance["version"] != FORMAT_VERSION:
        raise DataError(
            f"{path} has concept space version {provenance['version']}; this release reads "
            f"version {FORMAT_VERSION}: build the space again."
        )
    if clip_digest is not None and provenance["clip_digest"] != clip_digest:
        raise DataError(
            f"{path} was embedded by {provenance['clip_name']} with weights "
            f"{provenance['clip_digest'][:12]}, not by the weights in use ({clip_digest[:12]}); "
            "build the space again with this CLIP."
        )
    return ConceptSpace(
        labels=tuple(provenance["labels"]),
        categories=tensors["categories"],
        description_texts=tuple(tuple(texts) for texts in provenance["description_texts"]),
        descriptions=tensors.get("descriptions"),
        link=tensors.get("link"),
        layout=provenance["layout"],
        templates=tuple(provenance["templates"]),
        description_templates=tuple(provenance["description_templates"]),
        clip_name=provenance["clip_name"],
        clip_digest=provenance["clip_digest"],
    )
