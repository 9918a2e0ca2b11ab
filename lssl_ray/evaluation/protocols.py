"""Protocols on extracted features: every model on the same videos, in one shape of result.

Which features a protocol takes: zero-shot the joint space, view by view; the linear probe the mean
of slow and fast clips before the projection (SVT's); k-NN and few-shot the slow clips before the
projection. Views are averaged before a probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import Accuracy
from lssl_ray.evaluation.convex_probe import ConvexSettings
from lssl_ray.evaluation.features import ViewFeatures
from lssl_ray.evaluation.few_shot import NUM_SHOTS, run_few_shot
from lssl_ray.evaluation.knn import NUM_NEIGHBOURS, compute_knn
from lssl_ray.evaluation.linear_probe import average_slow_fast, run_linear_probe
from lssl_ray.evaluation.outcome import Outcome, Part, Protocol
from lssl_ray.evaluation.sgd_probe import SgdSettings
from lssl_ray.evaluation.targets import FULL, Target
from lssl_ray.evaluation.transductive import Reading
from lssl_ray.evaluation.views import FAST, SLOW
from lssl_ray.evaluation.zero_shot import compute_zero_shot

TEXT_PROTOCOLS = ("zero_shot", "transductive")
Features = Mapping[str, Mapping[str, ViewFeatures]]


@dataclass(frozen=True)
class Setting:
    """What protocols are run on.

    Attributes:
        target: Videos, right names, divisions.
        video_ids: The videos that decoded, in the order of the features' rows.
        features: Model, then view, to features.
        categories: Unit-length label embeddings in the order of the target's labels; None without
            a protocol that reads text.
        readings: Model to what its training knew of the target.
    """

    target: Target
    video_ids: tuple[str, ...]
    features: Features
    categories: Float[Tensor, "labels embedding"] | None
    readings: Mapping[str, Reading]

    def select(self, rows: Sequence[int]) -> tuple[tuple[int, ...], list[int], list[str]]:
        """Of some rows of the target those that decoded: rows, rows of the features, names.

        Raises:
            DataError: None of them decoded.
        """
        place = {video_id: row for row, video_id in enumerate(self.video_ids)}
        kept = tuple(row for row in rows if self.target.video_ids[row] in place)
        if not kept:
            raise DataError(
                f"None of {len(rows)} videos of the evaluation could be decoded; see the reasons "
                "with lssl-ray data check, or index again."
            )
        places = [place[self.target.video_ids[row]] for row in kept]
        return kept, places, [self.target.truth[row] for row in kept]


def run_protocol(protocol: Protocol, setting: Setting) -> tuple[Outcome, ...]:
    """Score every model by one protocol.

    Raises:
        DataError: What the protocol refuses: no videos, one class, nothing to hold out.
    """
    if protocol in TEXT_PROTOCOLS:
        return (_run_zero_shot(protocol, setting),)
    runs = {"linear_probe": _run_linear_probe, "knn": _run_knn, "few_shot": _run_few_shot}
    return runs[protocol](setting)


def _run_zero_shot(protocol: Protocol, setting: Setting) -> Outcome:
    target = setting.target
    categories = setting.categories
    assert categories is not None

    def score(name: str, rows: Sequence[int]) -> Part:
        kept, places, truth = setting.select(rows)
        results = {
            model: compute_zero_shot(
                views[SLOW].joint[places],
                categories,
                labels=target.labels,
                truth=truth,
                transductive=setting.readings[model],
            )
            for model, views in setting.features.items()
        }
        return Part(name, kept, len(rows) - len(kept), results)

    return Outcome(
        protocol=protocol,
        variant="",
        over="splits",
        parts=tuple(score(division.name, division.test) for division in target.divisions),
        full=score(FULL, range(len(target.truth))) if target.has_full else None,
    )


def _run_linear_probe(setting: Setting) -> tuple[Outcome, ...]:
    pooled = {
        model: average_slow_fast(
            views[SLOW].pooled.mean(dim=1), views[FAST].pooled.mean(dim=1)
        ).clone()
        for model, views in setting.features.items()
    }
    outcomes = []
    for variant, settings in (("sgd", SgdSettings()), ("convex", ConvexSettings())):
        parts, notes = [], []
        for pieces in _split_features(setting, pooled):
            results = {
                model: run_linear_probe(
                    **arguments, settings=settings, transductive=setting.readings[model]
                )
                for model, arguments in pieces.arguments.items()
            }
            parts.append(pieces.build_part(results))
            notes += _note_probe(parts[-1])
        outcomes.append(
            Outcome("linear_probe", variant, "splits", tuple(parts), notes=tuple(notes))
        )
    return tuple(outcomes)


def _run_knn(setting: Setting) -> tuple[Outcome, ...]:
    pooled = _average_slow(setting)
    by_k: dict[int, list[Part]] = {}
    notes = []
    for pieces in _split_features(setting, pooled):
        fitting = [k for k in NUM_NEIGHBOURS if k <= pieces.num_train]
        if len(fitting) < len(NUM_NEIGHBOURS):
            left_out = ", ".join(str(k) for k in NUM_NEIGHBOURS if k not in fitting)
            notes.append(
                f"{pieces.name}: k = {left_out} left out, {pieces.num_train} training videos"
            )
        results = {
            model: compute_knn(
                **arguments, num_neighbours=fitting, transductive=setting.readings[model]
            )
            for model, arguments in pieces.arguments.items()
        }
        for index, k in enumerate(fitting):
            part = pieces.build_part({model: found[index] for model, found in results.items()})
            by_k.setdefault(k, []).append(part)
    return tuple(
        Outcome("knn", f"k = {k}", "splits", tuple(parts), notes=tuple(notes))
        for k, parts in by_k.items()
    )


def _run_few_shot(setting: Setting) -> tuple[Outcome, ...]:
    pooled = _average_slow(setting)
    if len(setting.target.divisions) > 1:
        raise DataError("Few-shot is over seeds, on one split: choose it with --split 1, 2 or 3.")
    (pieces,) = _split_features(setting, pooled)
    largest = pieces.count_largest_label()
    shots = [count for count in NUM_SHOTS if count <= largest] or [NUM_SHOTS[0]]
    found = {
        model: run_few_shot(**arguments, num_shots=shots, transductive=setting.readings[model])
        for model, arguments in pieces.arguments.items()
    }
    notes = []
    if len(shots) < len(NUM_SHOTS):
        notes.append(f"no label has more than {largest} training videos: larger K left out")
    outcomes = []
    for index, count in enumerate(shots):
        points = {model: result.points[index] for model, result in found.items()}
        point = next(iter(points.values()))
        seeds = next(iter(found.values())).seeds
        parts = tuple(
            pieces.build_part(
                {model: point.results[place] for model, point in points.items()},
                name=f"seed {seed}",
            )
            for place, seed in enumerate(seeds)
        )
        short = len(point.short_labels)
        said = [*notes, f"{short} labels have fewer than {count} training videos"]
        outcomes.append(
            Outcome(
                "few_shot", f"K = {count}", "seeds", parts, notes=tuple(said if short else notes)
            )
        )
    return tuple(outcomes)


@dataclass(frozen=True)
class _Pieces:
    """A division's features, cut for probes."""

    name: str
    test_rows: tuple[int, ...]
    num_excluded: int
    train_truth: tuple[str, ...]
    arguments: Mapping[str, dict[str, Any]]

    @property
    def num_train(self) -> int:
        return len(self.train_truth)

    def count_largest_label(self) -> int:
        return max(self.train_truth.count(label) for label in set(self.train_truth))

    def build_part(self, results: Mapping[str, Accuracy], *, name: str | None = None) -> Part:
        return Part(name or self.name, self.test_rows, self.num_excluded, results)


def _split_features(setting: Setting, pooled: Mapping[str, Tensor]) -> list[_Pieces]:
    pieces = []
    for division in setting.target.divisions:
        _, train, train_truth = setting.select(division.train)
        kept, test, test_truth = setting.select(division.test)
        pieces.append(
            _Pieces(
                name=division.name,
                test_rows=kept,
                num_excluded=len(division.test) - len(kept),
                train_truth=tuple(train_truth),
                arguments={
                    model: {
                        "train_features": features[train],
                        "train_truth": train_truth,
                        "test_features": features[test],
                        "test_truth": test_truth,
                        "labels": setting.target.labels,
                    }
                    for model, features in pooled.items()
                },
            )
        )
    return pieces


def _average_slow(setting: Setting) -> dict[str, Tensor]:
    return {
        model: views[SLOW].pooled.mean(dim=1).clone() for model, views in setting.features.items()
    }


def _note_probe(part: Part) -> list[str]:
    notes = []
    for model, result in part.results.items():
        said = result.to_json()
        choice = said["choice"]
        notes.append(
            f"{part.name}, {model}: {choice['name']} = {choice['value']:g}, {choice['method']}"
        )
        if said["unconverged_fits"]:
            notes.append(f"{part.name}, {model}: {said['unconverged_fits']} fits did not converge")
        if untrained := said["untrained_labels"]:
            notes.append(
                f"{part.name}, {model}: {len(untrained)} labels have no training video and are "
                "never predicted"
            )
    return notes
