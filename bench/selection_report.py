"""How well scores rank runs by their true accuracy, and what choosing by them costs. Pure.

For `label_free_selection.py`, which trains the runs. Rows of both in, figures out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata
from selection_space import RECIPE_NAME

Floats = NDArray[np.float64]

NUM_DRAWS = 4000
SWEEP_SIZE = 8
HELD_BACK_LABELS = "labels of the held-back videos"
OTHER_WORLD = "accuracy on the other seeds' worlds"
VOTE = "agreement with all runs' vote"


@dataclass(frozen=True)
class Results:
    """All runs of a sweep.

    Attributes:
        configurations: Names of those that were trained on every seed without failing.
        seeds: Of the worlds.
        top1: True zero-shot accuracy on validation videos, percent [configurations, seeds].
        clip_top1: CLIP's, percent [seeds].
        scores: Label-free scores [configurations, seeds], higher is better; of the same views and
            concept space for all runs.
        own_scores: Likewise, of each run's own views and concept space.
        references: What label-free scores are held against, likewise.
        failed: Name of each configuration that failed, and why.
    """

    configurations: tuple[str, ...]
    seeds: tuple[int, ...]
    top1: Floats
    clip_top1: Floats
    scores: dict[str, Floats]
    own_scores: dict[str, Floats]
    references: dict[str, Floats]
    failed: dict[str, str]


def gather_results(rows: Sequence[Mapping[str, Any]]) -> Results:
    """Rows of runs to arrays; configurations that lack a seed are left out."""
    failed = {row["name"]: row["failed"] for row in rows if row["failed"]}
    seeds = tuple(sorted({row["seed"] for row in rows}))
    by_place = {(row["name"], row["seed"]): row for row in rows}
    names = tuple(
        name
        for name in dict.fromkeys(row["name"] for row in rows)
        if name not in failed and all((name, seed) in by_place for seed in seeds)
    )
    if len(names) < 3:
        raise SystemExit(
            f"{len(names)} configurations are trained on all of the seeds {list(seeds)}; to rank "
            "them takes at least three. Let the bench go on."
        )

    def collect(read: Any) -> Floats:
        return np.array([[read(by_place[name, seed]) for seed in seeds] for name in names])

    top1 = collect(lambda row: row["top1"])
    score_names = by_place[names[0], seeds[0]]["scores"]

    def collect_scores(kind: str) -> dict[str, Floats]:
        return {name: collect(lambda row, name=name: row[kind][name]) for name in score_names}

    references = {HELD_BACK_LABELS: collect(lambda row: row["selection_top1"])}
    if len(seeds) > 1:
        others = top1.sum(axis=1, keepdims=True) - top1
        references[OTHER_WORLD] = others / (len(seeds) - 1)
    references[VOTE] = np.stack(
        [
            compute_vote_agreement([by_place[name, seed]["predictions"] for name in names])
            for seed in seeds
        ],
        axis=1,
    )
    return Results(
        configurations=names,
        seeds=seeds,
        top1=top1,
        clip_top1=np.array([by_place[names[0], seed]["clip_top1"] for seed in seeds]),
        scores=collect_scores("scores"),
        own_scores=collect_scores("own_scores"),
        references=references,
        failed=failed,
    )


def compute_vote_agreement(predictions: Sequence[Sequence[int]]) -> Floats:
    """Per run, the share of videos on which it says what most runs say.

    After Hu et al., "Towards reliable model selection for unsupervised domain adaptation",
    NeurIPS 2024 (EnsV), whose role model is the mean of all candidates' probabilities.
    """
    labels = np.array(predictions)  # [runs, videos]
    counts = np.stack([(labels == label).sum(axis=0) for label in range(labels.max() + 1)])
    return np.asarray((labels == counts.argmax(axis=0)).mean(axis=1), dtype=np.float64)


def compute_report(results: Results) -> dict[str, Any]:
    """Every figure of the table, as plain data."""
    top1, count = results.top1, len(results.configurations)
    size = min(SWEEP_SIZE, count)
    rng = np.random.default_rng(0)
    drawn = np.argsort(rng.random((NUM_DRAWS, count)), axis=1)[:, :size]  # [draws, size]
    resampled = rng.integers(count, size=(NUM_DRAWS, count))
    everyone = np.arange(count)[None]
    kinds = {
        "scores": results.scores,
        "own_scores": results.own_scores,
        "references": results.references,
    }
    described = {
        kind: {
            name: _describe_score(values, results, drawn=drawn, resampled=resampled)
            for name, values in of_kind.items()
        }
        for kind, of_kind in kinds.items()
    }
    noise = compute_noise(top1)
    means = top1.mean(axis=1)
    report: dict[str, Any] = {
        "configurations": count,
        "seeds": list(results.seeds),
        "failed": results.failed,
        "sweep_size": size,
        "clip_top1": results.clip_top1.tolist(),
        "top1": {
            "best": top1.max(axis=0).tolist(),
            "mean": top1.mean(axis=0).tolist(),
            "worst": top1.min(axis=0).tolist(),
            "best_configurations": [results.configurations[i] for i in top1.argmax(axis=0)],
        },
        "noise_points": noise,
        "within_noise_of_best": None,
        "random": {
            "regret_all": _mean_regret_of_random(top1, everyone).tolist(),
            "regret_drawn": _mean_regret_of_random(top1, drawn).tolist(),
        },
        **described,
        "chosen_on_other_seeds": _choose_on_other_seeds(results, described["scores"]),
    }
    if noise is not None:
        least = 2 * noise * np.sqrt(2 / len(results.seeds))
        report["within_noise_of_best"] = int((means >= means.max() - least).sum())
    if RECIPE_NAME in results.configurations:
        recipe = top1[results.configurations.index(RECIPE_NAME)]
        report["recipe"] = {
            "top1": recipe.tolist(),
            "regret_all": (top1.max(axis=0) - recipe).tolist(),
        }
    return report


def compute_noise(top1: Floats) -> float | None:
    """Standard deviation of a run's accuracy that neither configuration nor world explains.

    The residual of an additive model over [configurations, seeds]; None with one seed.
    """
    count, seeds = top1.shape
    if seeds < 2:
        return None
    rest = top1 - top1.mean(axis=1, keepdims=True) - top1.mean(axis=0) + top1.mean()
    return float(np.sqrt((rest**2).sum() / ((count - 1) * (seeds - 1))))


def compute_spearman(first: Floats, second: Floats) -> Floats:
    """Rank correlation along the last axis; 0 where one of the two is constant."""
    ranks = [rankdata(part, axis=-1) for part in (first, second)]
    centred = [part - part.mean(axis=-1, keepdims=True) for part in ranks]
    scale = np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
    product = (centred[0] * centred[1]).sum(axis=-1)
    return np.asarray(product / np.where(scale > 0, scale, np.inf))


def compute_regret(top1: Floats, score: Floats, groups: NDArray[np.int64]) -> Floats:
    """Points lost against the best of each group by taking the one with the highest score.

    Args:
        top1: Percent [configurations].
        score: [configurations].
        groups: Row numbers [groups, size].
    """
    accuracies, scores = top1[groups], score[groups]
    chosen = np.take_along_axis(accuracies, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.asarray(accuracies.max(axis=1) - chosen)


def _describe_score(
    values: Floats, results: Results, *, drawn: NDArray[np.int64], resampled: NDArray[np.int64]
) -> dict[str, Any]:
    top1 = results.top1
    seeds = range(len(results.seeds))
    everyone = np.arange(len(top1))[None]
    better = top1.mean(axis=1) >= np.median(top1.mean(axis=1))
    spearman = [float(compute_spearman(values[:, s], top1[:, s])) for s in seeds]
    kendall = [float(np.nan_to_num(_compute_kendall(values[:, s], top1[:, s]))) for s in seeds]
    bootstrap = np.mean(
        [compute_spearman(values[resampled, s], top1[resampled, s]) for s in seeds], axis=0
    )
    chosen = [int(values[:, s].argmax()) for s in seeds]
    return {
        "spearman": spearman,
        "spearman_mean": float(np.mean(spearman)),
        "spearman_interval": np.quantile(bootstrap, [0.025, 0.975]).tolist(),
        "spearman_better_half": float(
            np.mean([compute_spearman(values[better, s], top1[better, s]) for s in seeds])
        ),
        "kendall": kendall,
        "kendall_mean": float(np.mean(kendall)),
        "chosen": [results.configurations[row] for row in chosen],
        "chosen_top1": [float(top1[row, s]) for s, row in enumerate(chosen)],
        "regret_all": [float(compute_regret(top1[:, s], values[:, s], everyone)[0]) for s in seeds],
        "regret_drawn": [
            float(compute_regret(top1[:, s], values[:, s], drawn).mean()) for s in seeds
        ],
    }


def _compute_kendall(first: Floats, second: Floats) -> float:
    return float(kendalltau(first, second).statistic) if np.ptp(first) and np.ptp(second) else 0.0


def _mean_regret_of_random(top1: Floats, groups: NDArray[np.int64]) -> Floats:
    accuracies = top1[groups]  # [groups, size, seeds]
    return np.asarray((accuracies.max(axis=1) - accuracies.mean(axis=1)).mean(axis=0))


def _choose_on_other_seeds(
    results: Results, described: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each seed, the score that is best on the others, and its regret on this one."""
    if len(results.seeds) < 2:
        return []
    found = []
    for place, seed in enumerate(results.seeds):
        others = {
            name: float(np.mean(np.delete(figures["regret_drawn"], place)))
            for name, figures in described.items()
        }
        name = min(others, key=lambda one: others[one])
        found.append(
            {"seed": seed, "score": name, "regret_drawn": described[name]["regret_drawn"][place]}
        )
    return found
