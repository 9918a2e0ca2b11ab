"""The videos and labels of an evaluation, and what training knew of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from torch import Tensor

from lssl_ray import build
from lssl_ray.concepts.bank import BANK_PREFIX, load_labels
from lssl_ray.concepts.space import embed_ensemble
from lssl_ray.config import RunConfig
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.evaluating.request import EvaluationRequest
from lssl_ray.evaluating.sources import EvaluatedModel
from lssl_ray.evaluation.benchmarks import load_benchmark
from lssl_ray.evaluation.benchmarks.matching import find_ids
from lssl_ray.evaluation.targets import (
    OWN,
    Target,
    build_benchmark_target,
    build_own_target,
)
from lssl_ray.evaluation.transductive import Transduction, find_transductive_reading
from lssl_ray.video.held_back import split_held_back
from lssl_ray.video.manifest import Manifest, VideoRecord, load_manifest


@dataclass(frozen=True)
class EvaluatedVideos:
    """What is scored.

    Attributes:
        manifest: All rows of all manifests, bad ones included.
        records: The same as objects.
        target: Who takes part, right names, divisions.
        label_source: Where the label list is from.
        templates: Prompts that labels were put into; none where no text is read.
        categories: Unit-length label embeddings; None where no text is read.
        transduction: What training knew of the target; None when nobody can say.
    """

    manifest: Manifest
    records: tuple[VideoRecord, ...]
    target: Target
    label_source: str
    templates: tuple[str, ...]
    categories: Float[Tensor, "labels embedding"] | None
    transduction: Transduction | None


def prepare_videos(request: EvaluationRequest, model: EvaluatedModel) -> EvaluatedVideos:
    """Read manifests and labels, and refuse what can't be scored.

    Raises:
        ConfigError: No label list.
        DataError: No labels, unknown labels, empty splits, the same video in two manifests.
    """
    manifest = join_manifests([*request.manifests, *request.train_manifests])
    records = tuple(manifest.records())
    source, labels, templates, categories = _find_labels(request, model)
    if request.benchmark == OWN:
        target = build_own_target(
            records,
            labels=labels,
            split=request.split,
            needs_training=request.needs_training,
            skip_unlabelled=request.skip_unlabelled,
        )
    else:
        num_teaching = sum(len(load_manifest(str(path))) for path in request.train_manifests)
        target = build_benchmark_target(
            request.benchmark,
            records,
            num_own_training=num_teaching,
            skip_unlabelled=request.skip_unlabelled,
            split=request.split,
            needs_training=request.needs_training,
            needs_splits=request.reads_text,
        )
    return EvaluatedVideos(
        manifest=manifest,
        records=records,
        target=target,
        label_source=source,
        templates=templates,
        categories=categories,
        transduction=_find_transduction(model, target, records),
    )


def join_manifests(paths: Sequence[Path]) -> Manifest:
    """All rows of several manifests, one after the other.

    Ids are relative to the folder that was indexed; where two folders' clash, paths are ids.

    Raises:
        DataError: A file that is no manifest, or the same video twice.
    """
    manifests = [load_manifest(str(path)) for path in paths]
    table = pa.concat_tables([manifest.table for manifest in manifests])
    if pc.count_distinct(table["video_id"]).as_py() < table.num_rows:
        place = table.schema.get_field_index("video_id")
        table = table.set_column(place, table.schema.field(place), table["path"])
    if pc.count_distinct(table["video_id"]).as_py() < table.num_rows:
        raise DataError(
            f"{', '.join(map(str, paths))} hold the same video more than once; give each once."
        )
    return Manifest(table.combine_chunks(), root=", ".join(one.root for one in manifests))


def _find_labels(
    request: EvaluationRequest, model: EvaluatedModel
) -> tuple[str, tuple[str, ...] | None, tuple[str, ...], Tensor | None]:
    """Source, names, templates and embeddings of what there is to choose from."""
    space, config = model.space, model.config
    templates = config.concepts.templates if space is None else space.templates
    source = request.labels or config.evaluation.labels
    if request.benchmark != OWN:
        source = f"{BANK_PREFIX}{request.benchmark}"
    if source is not None:
        names = load_labels(source).labels
    elif model.labels is not None and request.reads_text:
        names = model.labels
        source = "the labels of the export"
    elif space is not None and request.reads_text:
        return "the labels trained with", space.labels, templates, space.categories
    elif request.reads_text:
        raise ConfigError(
            "Plain CLIP has no labels to choose from; give them with --labels FILE or bank:NAME."
        )
    else:
        return "the videos' own labels", None, (), None
    if not request.reads_text:
        return source, names, (), None
    return source, names, templates, embed_ensemble(names, model.clip, templates=templates)


def _find_transduction(
    model: EvaluatedModel, target: Target, records: Sequence[VideoRecord]
) -> Transduction | None:
    """What training knew; None when its manifest is gone, and of an export, which can't say."""
    if model.export is not None:
        return None
    if model.space is None:
        labels: tuple[str, ...] = ()
        trained: list[VideoRecord] = []
    else:
        # The prototypes baseline never reads the space's names.
        by_concepts = model.config.objective.space == "concepts"
        labels = model.space.labels if by_concepts else ()
        try:
            trained = _list_trained(model.config)
        except DataError:
            return None
    taken = set(target.video_ids)
    return find_transductive_reading(
        labels,
        target_labels=target.labels,
        training_ids=_identify(target.benchmark, trained),
        target_ids=_identify(
            target.benchmark, [record for record in records if record.video_id in taken]
        ),
    )


def _list_trained(config: RunConfig) -> list[VideoRecord]:
    """What a run could train on: neither videos that its index found bad nor those held back."""
    usable = build.load_training_manifest(config).usable()
    trained, _ = split_held_back(usable, num_held_back=config.data.hold_back)
    return trained.records()


def _identify(benchmark: str, records: Sequence[VideoRecord]) -> list[str]:
    """The same for the same video under two roots.

    A benchmark's own id; else file name and size: ids are relative to the folder that was indexed.
    """
    if benchmark == OWN:
        return [f"{Path(record.video_id).name}\n{record.size_bytes}" for record in records]
    found = find_ids(load_benchmark(benchmark), [record.video_id for record in records])
    return [video_id for video_id in found if video_id is not None]
