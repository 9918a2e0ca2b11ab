"""One shape for every protocol's result: models side by side, over splits or seeds.

Every figure says which videos it is of. Results come in; only comparisons are computed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lssl_ray.evaluation.accuracy import Accuracy, percent
from lssl_ray.evaluation.confusion import (
    ClassChange,
    compare_classes,
    compute_confusion,
    find_confused_pairs,
)
from lssl_ray.evaluation.statistics import compare_paired, compute_interval, summarise

Protocol = Literal["zero_shot", "transductive", "linear_probe", "knn", "few_shot"]


@dataclass(frozen=True)
class Part:
    """One set of videos under every model.

    Attributes:
        name: The division, the full set, or a seed.
        rows: Row numbers of the target that were scored.
        num_excluded: Videos of this set that did not decode.
        results: By model, in the order of `rows`.
    """

    name: str
    rows: tuple[int, ...]
    num_excluded: int
    results: Mapping[str, Accuracy]

    def counted_wrong(self, model: str) -> float:
        """Top-1 with undecodable videos counted as wrong, in [0, 1]."""
        right = sum(self.results[model].right)
        return right / (len(self.rows) + self.num_excluded)


@dataclass(frozen=True)
class Outcome:
    """One protocol, with one setting, under every model.

    Attributes:
        protocol: Its name.
        variant: `sgd`, `convex`, `k = 5`, `K = 2`; "" where there is one only.
        over: What the parts differ in: `splits` or `seeds`.
        parts: At least one.
        full: All videos as one set; zero-shot over several splits only.
        notes: What a reader must know, e.g. labels without training videos.
    """

    protocol: Protocol
    variant: str
    over: Literal["splits", "seeds"]
    parts: tuple[Part, ...]
    full: Part | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is called in tables."""
        name = self.protocol.replace("_", " ").replace("knn", "k-NN")
        return f"{name}, {self.variant}" if self.variant else name

    @property
    def slug(self) -> str:
        """What it is called in names of metrics and files."""
        return f"{self.protocol}_{self.variant}".replace(" = ", "").rstrip("_")

    @property
    def main(self) -> Part:
        """The part whose classes and confusions are shown."""
        return self.full or self.parts[0]

    def compare_classes(self) -> tuple[ClassChange, ...]:
        """Per-class accuracy of two models on the main part; else nothing."""
        if len(self.main.results) != 2:
            return ()
        first, second = self.main.results.values()
        return compare_classes(first, second)

    def confused_pairs(self, model: str) -> list[dict[str, Any]]:
        """The pairs that a model confuses most on the main part."""
        confusion = compute_confusion(self.main.results[model])
        return [pair.to_json() for pair in find_confused_pairs(confusion)]

    def to_json(self) -> dict[str, Any]:
        """Plain data for files: per model the headline figures, then every part in full."""
        models = tuple(self.main.results)
        return {
            "protocol": self.protocol,
            "variant": self.variant,
            "title": self.title,
            "slug": self.slug,
            "over": self.over,
            "notes": list(self.notes),
            "models": {model: self._describe(model) for model in models},
            "comparison": compare_models(self.main),
            "class_changes": [change.to_json() for change in self.compare_classes()],
            "confused_pairs": {model: self.confused_pairs(model) for model in models},
            "parts": [_describe_part(part) for part in self.parts],
            "full": None if self.full is None else _describe_part(self.full),
        }

    def _describe(self, model: str) -> dict[str, Any]:
        main = self.main
        summary = summarise([part.results[model].top1 for part in self.parts])
        return {
            "top1_percent": percent(summary.mean),
            "std_points": None if summary.std is None else percent(summary.std),
            "values_percent": [percent(value) for value in summary.values],
            "set": main.name,
            "set_videos": len(main.rows),
            "set_excluded_undecodable": main.num_excluded,
            "set_interval": compute_interval(main.results[model].right).to_json(),
            "set_top1_excluded_counted_wrong_percent": percent(main.counted_wrong(model)),
            "transductive": main.results[model].transductive,
        }


def compare_models(part: Part) -> dict[str, Any] | None:
    """The second of two models against the first on the same videos; else None."""
    if len(part.results) != 2:
        return None
    names = tuple(part.results)
    first, second = part.results.values()
    return {
        "first": names[0],
        "second": names[1],
        "set": part.name,
        **compare_paired(first.right, second.right).to_json(),
    }


def _describe_part(part: Part) -> dict[str, Any]:
    return {
        "set": part.name,
        "rows": list(part.rows),
        "excluded_undecodable": part.num_excluded,
        "comparison": compare_models(part),
        "results": {model: result.to_json() for model, result in part.results.items()},
    }
