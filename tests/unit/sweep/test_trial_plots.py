"""Pictures of a sweep: what they are made of, and what they say when there is nothing to draw."""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sweep_parts import SELECT, build_trial

from lssl_ray.sweep.plots import compute_importance, draw_importance, draw_parallel_coordinates
from lssl_ray.sweep.trials import TrialRecord

SCHEDULE = {"shape": "linear", "start": 0.1, "end": 0.05, "until": 0.5}


def build_trials() -> list[TrialRecord]:
    """The score follows the rate alone; the form and the flag do nothing."""
    trials = []
    for index in range(24):
        rate = 10.0 ** (-6 + index / 12)
        values = {
            "optim.learning_rate": rate,
            "form": ["names", "pooled", "full"][index % 3],
            "model.freeze_spatial": index % 2 == 0,
            "objective.teacher_temperature": [0.05, SCHEDULE][index // 2 % 2],
        }
        trials.append(build_trial(f"t{index:02d}", values, index / 24))
    trials.append(build_trial("lost", dict(values), None, status="failed"))
    trials.append(build_trial("cut", dict(values), 0.95, status="stopped_early"))
    return trials


def count_colours(path: Path) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def test_importance_finds_the_value_that_the_score_follows() -> None:
    shares = compute_importance(build_trials(), SELECT)
    assert next(iter(shares)) == "learning_rate"
    assert shares["learning_rate"] > 0.8
    assert set(shares) == {"learning_rate", "form", "freeze_spatial", "teacher_temperature"}
    assert 0 <= sum(shares.values()) <= 1 + 1e-6


def test_importance_is_the_same_every_time() -> None:
    assert compute_importance(build_trials(), SELECT) == compute_importance(build_trials(), SELECT)


def test_importance_of_a_two_by_two_grid_equals_its_analysis_of_variance() -> None:
    trials = [
        build_trial(f"{a}{b}{copy}", {"a": f"a{a}", "b": f"b{b}"}, 3.0 * a + 1.0 * b)
        for a in (0, 1)
        for b in (0, 1)
        for copy in range(20)
    ]
    # Main effects 3 and 1: variances 9 / 4 and 1 / 4 of 10 / 4.
    shares = compute_importance(trials, SELECT)
    assert shares["a"] == pytest.approx(0.9, abs=0.02)
    assert shares["b"] == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("draw", [draw_importance, draw_parallel_coordinates])
def test_plots_draw_mixed_values_and_leave_matplotlib_as_it_was(draw, tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    path = tmp_path / "out" / "plot.png"
    assert draw(build_trials(), SELECT, path) is None
    assert count_colours(path) > 20
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize("draw", [draw_importance, draw_parallel_coordinates])
@pytest.mark.parametrize(
    ("trials", "word"),
    [
        ([], "0"),
        ([build_trial("t1", {"x": 1}, 0.5)], "1"),
        ([build_trial("t1", {"x": 1}, 0.5), build_trial("t2", {"x": 2}, None)], "1"),
        ([build_trial(f"t{i}", {"x": i}, 0.5) for i in range(3)], "same score"),
        ([build_trial(f"t{i}", {"x": 1}, i / 3, seed=i) for i in range(3)], "seeds"),
    ],
)
def test_plots_without_a_comparison_say_why(
    draw, trials: list[TrialRecord], word: str, tmp_path: Path
) -> None:
    path = tmp_path / "plot.png"
    reason = draw(trials, SELECT, path)
    assert reason is not None and word in reason
    assert count_colours(path) > 1  # the picture says it, too


@pytest.mark.parametrize("draw", [draw_importance, draw_parallel_coordinates])
def test_plots_of_two_trials_are_drawn(draw, tmp_path: Path) -> None:
    trials = [build_trial("t1", {"x": "$a$"}, 0.4), build_trial("t2", {"x": "b"}, 0.5)]
    assert draw(trials, SELECT, tmp_path / "plot.png") is None


def test_importance_tells_schedules_apart_that_end_differently() -> None:
    ends = [{"shape": "linear", "start": 0.1, "end": 0.05, "until": until} for until in (0.25, 0.5)]
    trials = [
        build_trial(f"t{i}", {"objective.weight_prior": ends[i % 2]}, float(i % 2))
        for i in range(8)
    ]
    assert compute_importance(trials, SELECT)["weight_prior"] == pytest.approx(1.0, abs=1e-3)


def test_plots_of_names_that_share_their_last_part_keep_them_apart() -> None:
    trials = [
        build_trial(f"t{i}", {"views.global.size": 32 * (i % 2), "views.local.size": i}, i / 7)
        for i in range(8)
    ]
    assert set(compute_importance(trials, SELECT)) == {"global.size", "local.size"}
