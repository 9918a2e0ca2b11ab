"""`lssl-ray concepts`: build concept spaces, look at them, compare them.

A *source* is a label file, `bank:NAME`, or a space file (`.safetensors`) that `build` wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from lssl_ray.cli_generate import generate_vocabulary
from lssl_ray.concepts.bank import load_labels
from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.config.schema import ConceptsSection
from lssl_ray.display import RunDisplay, open_display
from lssl_ray.errors import ConfigError

if TYPE_CHECKING:
    from lssl_ray.concepts.similarity import NearDuplicate
    from lssl_ray.concepts.space import ConceptSpace

concepts_app = typer.Typer(help="Build concept spaces, and look at them.", no_args_is_help=True)
concepts_app.command("generate")(generate_vocabulary)

SPACE_SUFFIX = ".safetensors"
NUM_NEIGHBOURS = 3
NUM_PAIRS_SHOWN = 20
_DEFAULTS = ConceptsSection.model_fields

SourceArgument = Annotated[
    str, typer.Argument(help="Label file, bank:NAME, or a built space file.")
]
ThresholdOption = Annotated[
    float, typer.Option(min=0, max=1, help="Cosine from which two labels are near-duplicates.")
]


@concepts_app.command("build")
def build_space(
    labels: Annotated[str, typer.Option(help="Label file, or bank:NAME (bank:lss-a, ...).")],
    clip: Annotated[str, typer.Option(help="open_clip model name, or local-dir:PATH.")],
    weights: Annotated[
        str | None, typer.Option(help="open_clip tag or weights file; none for local-dir.")
    ] = None,
    layout: Annotated[
        Literal["pooled", "full"], typer.Option(help="One row per label, or per description.")
    ] = "pooled",
    templates: Annotated[
        list[str] | None,
        typer.Option("--template", help="Prompt for labels, {} is the label; repeat for more."),
    ] = None,
    description_templates: Annotated[
        list[str] | None,
        typer.Option("--description-template", help="Prompt for descriptions; repeat for more."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Space file; default: in the cache only.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Embed anew, and keep nothing in the cache.")
    ] = False,
    threshold: ThresholdOption = 0.95,
) -> None:
    """Embed labels and descriptions with CLIP's text tower, into a space file.

    Train with it: --set concepts.space=FILE.
    """
    with open_display() as display:
        if no_cache and out is None:
            raise ConfigError("--no-cache without --out would keep nothing; give --out FILE.")
        vocabulary = load_labels(labels)
        from lssl_ray.concepts.cache import build_cached_space, find_cache_folder
        from lssl_ray.concepts.space import build_concept_space, save_concept_space
        from lssl_ray.model.clip import load_clip

        display.show_phase("Loading CLIP")
        model = load_clip(clip, weights=weights)
        prompts = tuple(templates or _DEFAULTS["templates"].default)
        description_prompts = tuple(
            description_templates or _DEFAULTS["description_templates"].default
        )

        def show_progress(done: int, total: int) -> None:
            display.show_count(done, total, "texts embedded")

        display.show_phase(f"Concept space of {_count_texts(vocabulary)}")
        if no_cache:
            space = build_concept_space(
                vocabulary,
                model,
                layout=layout,
                templates=prompts,
                description_templates=description_prompts,
                on_progress=show_progress,
            )
        else:
            cached = build_cached_space(
                vocabulary,
                model,
                layout=layout,
                templates=prompts,
                description_templates=description_prompts,
                folder=find_cache_folder(),
                on_progress=show_progress,
            )
            space = cached.space
            state = "Found in the cache" if cached.is_hit else "Kept in the cache"
            display.show_lines(f"{state}: {cached.path}")
        _show_duplicates(display, _find_duplicates(_Source(labels, vocabulary, space), threshold))
        if out is not None:
            save_concept_space(space, out)
            display.show_lines(f"Concept space: {out}")


@concepts_app.command("show")
def show_source(
    source: SourceArgument,
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Print every label's descriptions.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw cosines and most confusable labels (space files).")
    ] = None,
    threshold: ThresholdOption = 0.95,
) -> None:
    """Labels, descriptions, provenance, near-duplicates; of a space the neighbours too."""
    with open_display() as display:
        loaded = _load_source(source)
        space, vocabulary = loaded.space, loaded.vocabulary
        if picture is not None and space is None:
            raise ConfigError(
                f"--picture needs cosines, and {source} is not embedded; build a space of it with "
                "lssl-ray concepts build and show that file."
            )
        display.show_lines(f"{source}: {_count_texts(vocabulary)}", *_describe_making(loaded))
        display.show_table(_tabulate_labels(loaded))
        if descriptions:
            for label, texts in zip(vocabulary.labels, vocabulary.descriptions, strict=True):
                display.show_lines(label, *(f"  - {text}" for text in texts))
        _show_duplicates(display, _find_duplicates(loaded, threshold))
        if space is not None and picture is not None:
            from lssl_ray.concepts.pictures import draw_concept_map

            draw_concept_map(space, picture)
            display.show_lines(f"Picture: {picture}")


@concepts_app.command("compare")
def compare_sources(
    sources: Annotated[
        list[str], typer.Argument(help="Two or more: label files, bank:NAME, space files.")
    ],
) -> None:
    """Sizes, overlap, and how crowded the spaces of one CLIP are."""
    with open_display() as display:
        if len(sources) < 2:
            raise ConfigError(f"There is only {sources[0]} to compare; name two or more sources.")
        loaded = [_load_source(source) for source in sources]
        display.show_table(_tabulate_sizes(loaded))
        digests = {item.space.clip_digest for item in loaded if item.space is not None}
        if len(digests) > 1:
            display.show_lines("Different CLIPs embedded these spaces: cosines can't be compared.")
        display.show_table(_tabulate_overlap(loaded))


@dataclass(frozen=True)
class _Source:
    """What a source holds; `space` only where it is embedded."""

    name: str
    vocabulary: Vocabulary
    space: "ConceptSpace | None"


def _load_source(name: str) -> _Source:
    if not name.endswith(SPACE_SUFFIX):
        return _Source(name, load_labels(name), None)
    from lssl_ray.concepts.space import load_concept_space

    space = load_concept_space(Path(name))
    return _Source(name, Vocabulary(space.labels, space.description_texts), space)


def _count_texts(vocabulary: Vocabulary) -> str:
    counts = [len(texts) for texts in vocabulary.descriptions]
    text = f"{len(counts)} labels, {sum(counts)} descriptions"
    return f"{text} ({min(counts)} to {max(counts)} per label)" if sum(counts) else text


def _describe_making(source: _Source) -> list[str]:
    lines = [f"  {key}: {value}" for key, value in source.vocabulary.provenance.items()]
    if space := source.space:
        lines += [
            f"  CLIP: {space.clip_name}, weights {space.clip_digest[:12]}",
            f"  layout: {space.layout}",
            f"  templates: {' | '.join(space.templates)}",
            f"  description templates: {' | '.join(space.description_templates)}",
        ]
    return lines


def _find_duplicates(source: _Source, threshold: float) -> "list[NearDuplicate]":
    from lssl_ray.concepts.similarity import find_near_duplicates

    rows = None if source.space is None else source.space.categories
    return find_near_duplicates(source.vocabulary.labels, rows=rows, threshold=threshold)


def _show_duplicates(display: RunDisplay, found: "Sequence[NearDuplicate]") -> None:
    worded = sum(pair.same_words for pair in found)
    display.show_lines(
        f"Near-duplicates: {worded} pairs of the same words, {len(found) - worded} more by cosine"
    )
    for pair in found[:NUM_PAIRS_SHOWN]:
        cosine = "" if pair.cosine is None else f"  cosine {pair.cosine:.3f}"
        words = "  same words" if pair.same_words else ""
        display.show_lines(f"  {pair.first} = {pair.second}{cosine}{words}")
    if len(found) > NUM_PAIRS_SHOWN:
        display.show_lines(f"  and {len(found) - NUM_PAIRS_SHOWN} more")


def _tabulate_labels(source: _Source) -> Table:
    table = Table("label", "descriptions")
    texts = source.vocabulary.descriptions
    if source.space is None:
        for label, phrases in zip(source.vocabulary.labels, texts, strict=True):
            table.add_row(Text(label), str(len(phrases)))
        return table
    from lssl_ray.concepts.similarity import find_neighbours

    table.add_column("nearest labels, cosine")
    labels = source.space.labels
    cosines, indices = find_neighbours(source.space.categories, count=NUM_NEIGHBOURS)
    for row, label in enumerate(labels):
        pairs = zip(indices[row].tolist(), cosines[row].tolist(), strict=True)
        nearest = ", ".join(f"{labels[index]} {cosine:.2f}" for index, cosine in pairs)
        table.add_row(Text(label), str(len(texts[row])), Text(nearest))
    return table


def _tabulate_sizes(sources: Sequence[_Source]) -> Table:
    table = Table("source", "labels", "descriptions", "CLIP", "mean nearest cosine", title="Sizes")
    for source in sources:
        num_texts = sum(len(texts) for texts in source.vocabulary.descriptions)
        clip, crowding = "not embedded", "-"
        if source.space is not None:
            from lssl_ray.concepts.similarity import compute_mean_nearest

            clip = source.space.clip_digest[:12]
            crowding = f"{compute_mean_nearest(source.space.categories):.3f}"
        size = str(len(source.vocabulary.labels))
        table.add_row(Text(source.name), size, str(num_texts), clip, crowding)
    return table


def _tabulate_overlap(sources: Sequence[_Source]) -> Table:
    from lssl_ray.concepts.similarity import compute_overlap

    table = Table("labels of", title="Also in (+ with the same words only)")
    for source in sources:
        table.add_column(Text(source.name))
    for source in sources:
        cells = []
        for other in sources:
            overlap = compute_overlap(source.vocabulary.labels, other.vocabulary.labels)
            near = f" + {overlap.near}" if overlap.near else ""
            cells.append("" if other is source else f"{overlap.exact}{near}")
        table.add_row(Text(source.name), *cells)
    return table
