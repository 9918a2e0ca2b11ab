"""The arithmetic of bench/label_free_selection.py: correlation, regret, noise, which runs."""

import importlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from lssl_ray.config import load_config
from lssl_ray.demo.job import RECIPE

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a bench module as its script does; leaves no trace."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.startswith("selection_")]:
        del sys.modules[name]


def build_rows(top1: np.ndarray, scores: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Rows as the bench files them, of configurations c0, c1, ... on seeds 0, 1, ..."""
    return [
        {
            "name": f"c{c}",
            "seed": s,
            "failed": None,
            "top1": float(top1[c, s]),
            "selection_top1": float(top1[c, s]),
            "clip_top1": 40.0,
            "scores": {name: float(values[c, s]) for name, values in scores.items()},
            "own_scores": {name: float(values[c, s]) for name, values in scores.items()},
            "predictions": [c % 3, 1, 2],
        }
        for c, s in itertools.product(*map(range, top1.shape))
    ]


def test_spearman_with_ties_equals_scipys_along_the_last_axis(load: Any) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(6, size=(5, 20)).astype(float), rng.normal(size=(5, 20))
    found = load("selection_report").compute_spearman(first, second)
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert found == pytest.approx(expected)


def test_spearman_constant_score_ranks_nothing(load: Any) -> None:
    assert load("selection_report").compute_spearman(np.ones(9), np.arange(9.0)) == 0.0


def test_regret_is_what_the_choice_loses_in_each_group(load: Any) -> None:
    top1, score = np.array([50.0, 40.0, 30.0, 45.0]), np.array([0.1, 0.9, 0.2, 0.5])
    groups = np.array([[0, 1, 2], [0, 2, 3], [2, 1, 3]])
    found = load("selection_report").compute_regret(top1, score, groups)
    assert found.tolist() == [10.0, 5.0, 5.0]


def test_noise_additive_accuracies_have_none_and_known_ones_are_found(load: Any) -> None:
    report = load("selection_report")
    rng = np.random.default_rng(0)
    clean = rng.normal(50, 10, size=(400, 1)) + np.array([[0.0, 7.0]])
    assert report.compute_noise(clean) == pytest.approx(0.0, abs=1e-9)
    noisy = clean + rng.normal(0, 2.0, size=clean.shape)
    assert report.compute_noise(noisy) == pytest.approx(2.0, rel=0.1)
    assert report.compute_noise(clean[:, :1]) is None


def test_report_true_score_has_no_regret_and_its_negative_the_most(load: Any) -> None:
    report = load("selection_report")
    top1 = np.random.default_rng(1).normal(45, 5, size=(12, 2))
    rows = build_rows(top1, {"true": top1, "negative": -top1})
    found = report.compute_report(report.gather_results(rows))
    true, negative = found["scores"]["true"], found["scores"]["negative"]
    assert true["spearman"] == pytest.approx([1.0, 1.0])
    assert negative["kendall"] == pytest.approx([-1.0, -1.0])
    assert true["regret_all"] == true["regret_drawn"] == [0.0, 0.0]
    assert negative["regret_all"] == pytest.approx((top1.max(axis=0) - top1.min(axis=0)).tolist())
    at_random = found["random"]["regret_all"]
    assert at_random == pytest.approx((top1.max(axis=0) - top1.mean(axis=0)).tolist())
    assert all(
        0 < one < other for one, other in zip(at_random, negative["regret_drawn"], strict=True)
    )
    assert [choice["score"] for choice in found["chosen_on_other_seeds"]] == ["true", "true"]
    table = load("selection_table").format_markdown(json.loads(json.dumps(found)))
    assert table.index("`true`") < table.index("`negative`")


def test_gather_leaves_out_failed_and_unfinished_configurations(load: Any) -> None:
    report = load("selection_report")
    top1 = np.arange(12.0).reshape(6, 2)
    rows = build_rows(top1, {"one": top1})
    rows[3]["failed"] = "TrainingError: a loss"  # c1, seed 1
    results = report.gather_results(rows[:-1])  # c5 lacks seed 1
    assert results.configurations == ("c0", "c2", "c3", "c4")
    assert list(results.failed) == ["c1"]
    assert results.top1[:, 1].tolist() == [1.0, 5.0, 7.0, 9.0]
    others = results.references[report.OTHER_WORLD]
    assert others.tolist() == results.top1[:, ::-1].tolist()


def test_vote_agreement_counts_videos_said_as_most_runs_say(load: Any) -> None:
    found = load("selection_report").compute_vote_agreement([[0, 1, 2], [0, 1, 0], [1, 1, 0]])
    assert found.tolist() == pytest.approx([2 / 3, 1.0, 2 / 3])


def test_configurations_are_valid_distinct_and_the_same_each_time(load: Any) -> None:
    sample = load("selection_space").sample_configurations
    found = sample(24)
    assert len(found) == 24
    assert found == sample(24)
    assert dict(itertools.islice(sample(30).items(), 24)) == found
    assert found["recipe"] == {}
    assert len({json.dumps(settings, sort_keys=True) for settings in found.values()}) == 24
    base = ["clip.model=local-dir:x", "data.manifest=x", "concepts.labels=x"]
    for settings in found.values():
        load_config(RECIPE, [*base, *(f"{k}={json.dumps(v)}" for k, v in settings.items())])
