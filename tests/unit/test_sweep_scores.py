"""Scores out of a journal that grows and is rewound."""

from pathlib import Path

import pytest

from lssl_ray.sweep.scores import Score, ScoreReader, load_last_scores
from lssl_ray.tracking.journal import METRICS_FILE, Journal

KEY = "held_back/mutual_information"


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    return tmp_path / METRICS_FILE


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def append_steps(journal: Journal, *steps: int) -> None:
    for step in steps:
        journal.append("metrics", {"step": step, "num_steps": 40, "loss/total": 1.0 / step})


def test_scores_of_a_growing_journal_come_once_with_their_progress(
    journal: Journal, metrics: Path
) -> None:
    reader = ScoreReader(metrics, key=KEY)
    append_steps(journal, 10, 20)
    assert reader.read_new() == []
    journal.append("metrics", {"step": 10, KEY: 0.5})
    assert reader.read_new() == [Score(step=10, progress=25.0, value=0.5)]
    assert reader.read_new() == []


def test_scores_of_steps_done_again_are_not_told_again(journal: Journal, metrics: Path) -> None:
    reader = ScoreReader(metrics, key=KEY)
    append_steps(journal, 10)
    journal.append("metrics", {"step": 10, KEY: 0.5})
    assert len(reader.read_new()) == 1
    journal.rewind(5)
    append_steps(journal, 10, 20)
    journal.append("metrics", {"step": 10, KEY: 0.5})
    journal.append("metrics", {"step": 20, KEY: 0.6})
    assert [score.step for score in reader.read_new()] == [20]


def test_scores_before_the_first_window_wait_for_it(journal: Journal, metrics: Path) -> None:
    """With run.log_every above run.checkpoint_every: a run is not done because nobody counts."""
    reader = ScoreReader(metrics, key=KEY)
    journal.append("metrics", {"step": 10, KEY: 0.5})
    assert reader.read_new() == []
    append_steps(journal, 20)
    assert reader.read_new() == [Score(step=10, progress=25.0, value=0.5)]
    assert reader.read_new() == []


def test_scores_that_come_late_and_in_disorder_are_sorted(journal: Journal, metrics: Path) -> None:
    append_steps(journal, 10, 20, 40)
    journal.append("metrics", {"step": 20, KEY: 0.2})
    journal.append("metrics", {"step": 10, KEY: 0.1})
    scores = ScoreReader(metrics, key=KEY).read_new()
    assert [(score.step, score.progress) for score in scores] == [(10, 25.0), (20, 50.0)]


def test_a_minus_turns_lower_into_better_and_what_is_not_finite_is_no_score(
    journal: Journal, metrics: Path
) -> None:
    journal.append("metrics", {"step": 1, "num_steps": 4, "loss/total": 3.0})
    journal.append("metrics", {"step": 2, "num_steps": 4, "loss/total": float("nan")})
    scores = ScoreReader(metrics, key="-loss/total").read_new()
    assert scores == [Score(step=1, progress=25.0, value=-3.0)]


def test_a_missing_journal_has_no_scores(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.jsonl"
    assert ScoreReader(missing, key=KEY).read_new() == []
    assert load_last_scores(missing, select=KEY) == (0, {})


def test_last_scores_are_those_of_the_newest_step_not_of_the_last_row(
    journal: Journal, metrics: Path
) -> None:
    append_steps(journal, 10, 20)
    journal.append("metrics", {"step": 20, KEY: 0.6, "validation/val/zero_shot": 0.4})
    journal.append("metrics", {"step": 10, KEY: 0.5})
    steps, scores = load_last_scores(metrics, select="-loss/total")
    assert steps == 20
    assert scores == {KEY: 0.6, "validation/val/zero_shot": 0.4, "-loss/total": -1 / 20}
