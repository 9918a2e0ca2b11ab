"""The bank's vocabularies: size, overlap with the benchmarks, how crowded under a CLIP.

    python bench/concept_variants.py                                   # the demo's tiny CLIP
    python bench/concept_variants.py --clip ViT-B-16 --weights openai  # downloads weights

Prints the Markdown table of docs/concepts.md. The tiny CLIP was trained on the demo's captions
only: most words of the bank are unknown to it, so its column shows how the figure is made and says
nothing about the vocabularies.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lssl_ray.concepts.bank import BANK_NAMES, DATASETS, load_bank
from lssl_ray.concepts.similarity import compute_mean_nearest, compute_overlap
from lssl_ray.concepts.space import build_concept_space
from lssl_ray.config.schema import ConceptsSection
from lssl_ray.demo.packed_clip import unpack_tiny_clip
from lssl_ray.display import RunDisplay
from lssl_ray.model.clip import ClipModel, load_clip


def main(
    clip: Annotated[str | None, typer.Option(help="open_clip model or local-dir:PATH.")] = None,
    weights: Annotated[str | None, typer.Option(help="open_clip tag or weights file.")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = clip or f"local-dir:{unpack_tiny_clip(Path(folder))}"
        model = load_clip(name, weights=weights)
    with RunDisplay(Console(stderr=True)) as display:
        rows = [_measure(variant, model, display) for variant in BANK_NAMES]
    known = "the demo's tiny CLIP" if clip is None else clip
    heads = ["vocabulary", "labels", "descriptions", *(f"in {dataset}" for dataset in DATASETS)]
    typer.echo(f"| {' | '.join(heads)} | mean nearest cosine, {known} |")
    typer.echo("|---" * (len(heads) + 1) + "|")
    for row in rows:
        typer.echo(f"| {' | '.join(row)} |")


def _measure(variant: str, clip: ClipModel, display: RunDisplay) -> list[str]:
    vocabulary = load_bank(variant)
    overlaps = [
        compute_overlap(load_bank(dataset).labels, vocabulary.labels) for dataset in DATASETS
    ]
    display.show_phase(variant)
    concepts = ConceptsSection()
    space = build_concept_space(
        vocabulary,
        clip,
        layout=concepts.layout,
        templates=concepts.templates,
        description_templates=concepts.description_templates,
        on_progress=lambda done, total: display.show_count(done, total, "texts embedded"),
    )
    return [
        f"`bank:{variant}`",
        str(len(vocabulary.labels)),
        str(sum(len(texts) for texts in vocabulary.descriptions)),
        *(f"{overlap.exact} + {overlap.near}" for overlap in overlaps),
        f"{compute_mean_nearest(space.categories):.3f}",
    ]


if __name__ == "__main__":
    typer.run(main)
