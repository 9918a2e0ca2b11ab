"""Probes: scikit-learn itself as the oracle, and choices that the test split can't reach."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from blobs import LABELS, Blobs, draw_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from lssl_ray.errors import DataError
from lssl_ray.evaluation.convex_probe import ConvexSettings, Scaling
from lssl_ray.evaluation.linear_probe import (
    LinearProbeResult,
    average_slow_fast,
    run_linear_probe,
)
from lssl_ray.evaluation.probe_choice import assign_folds
from lssl_ray.evaluation.sgd_probe import SgdSettings

Run = Callable[..., LinearProbeResult]
SGD = SgdSettings(num_epochs=15, batch_size=32)


def run_sgd(blobs: Blobs, labels: Sequence[str] = LABELS, **options: Any) -> LinearProbeResult:
    return run(blobs, labels, **{"settings": SGD} | options)


def run_convex(blobs: Blobs, labels: Sequence[str] = LABELS, **options: Any) -> LinearProbeResult:
    return run(blobs, labels, **{"settings": ConvexSettings()} | options)


def run(blobs: Blobs, labels: Sequence[str], **options: Any) -> LinearProbeResult:
    return run_linear_probe(
        blobs.train,
        train_truth=blobs.train_truth,
        test_features=blobs.test,
        test_truth=blobs.test_truth,
        labels=labels,
        **options,
    )


both_solvers = pytest.mark.parametrize("run", [run_sgd, run_convex])


@pytest.mark.parametrize("scaling", ["standardise", "unit"])
def test_convex_probe_agrees_with_scikit_learn(scaling: Scaling) -> None:
    blobs = draw_blobs()
    settings = ConvexSettings(scaling=scaling)
    result = run_convex(blobs, settings=settings)
    targets = np.array([LABELS.index(name) for name in blobs.train_truth])
    folds = PredefinedSplit(assign_folds(targets, num_folds=3, seed=0))
    # Unit features times the root of their dimension: the same as a C that is larger by it.
    scaler, factor = (StandardScaler(), 1) if scaling == "standardise" else (Normalizer(), 12)
    features = blobs.train.double().numpy()

    def build_oracle(penalty: float) -> Pipeline:
        regression = LogisticRegression(C=factor * penalty, max_iter=1000, tol=1e-6)
        return make_pipeline(scaler, regression)

    for trial in result.choice.trials:
        scores = cross_validate(
            build_oracle(trial.value),
            features,
            targets,
            cv=folds,
            scoring=("accuracy", "neg_log_loss"),
        )
        # Folds of equal size: the mean of their figures is the figure over all videos. The choice
        # is made in float32 and to a wider tolerance: a video on the line may fall to either side.
        assert trial.accuracy == pytest.approx(scores["test_accuracy"].mean(), abs=1.01 / 120)
        assert trial.loss == pytest.approx(-scores["test_neg_log_loss"].mean(), rel=0.01)
    best = max(trial.accuracy for trial in result.choice.trials)
    assert result.choice.value in [t.value for t in result.choice.trials if t.accuracy == best]
    oracle = build_oracle(result.choice.value)
    oracle.fit(features, targets)
    assert list(result.predictions) == oracle.predict(blobs.test.double().numpy()).tolist()
    assert 0.5 < result.top1 < 1
    assert result.num_unconverged == 0


def test_sgd_probe_reaches_what_the_convex_solver_reaches() -> None:
    blobs = draw_blobs(num_train=400, num_test=400)
    result = run_sgd(blobs)
    assert result.top1 == pytest.approx(run_convex(blobs).top1, abs=0.03)
    assert len(result.choice.trials) == len(SGD.learning_rates)
    assert result.settings["momentum"] == 0.9 and result.settings["weight_decay"] == 0.0


@both_solvers
def test_probe_poisoned_test_labels_leave_choice_and_predictions(run: Run) -> None:
    blobs = draw_blobs()
    wrong = [LABELS[(LABELS.index(name) + 1) % 4] for name in blobs.test_truth]
    honest = run(blobs)
    poisoned = run(Blobs(blobs.train, blobs.train_truth, blobs.test, wrong))
    assert poisoned.choice == honest.choice
    assert poisoned.ranking == honest.ranking
    assert poisoned.top1 < honest.top1


@both_solvers
def test_probe_other_test_videos_leave_the_choice(run: Run) -> None:
    blobs, others = draw_blobs(), draw_blobs(seed=9)
    mixed = Blobs(blobs.train, blobs.train_truth, others.test, others.test_truth)
    assert run(mixed).choice == run(blobs).choice


@both_solvers
def test_probe_result_repeats_exactly(run: Run) -> None:
    torch.manual_seed(1)
    first = run(draw_blobs())
    torch.manual_seed(2)
    assert run(draw_blobs()) == first


@both_solvers
def test_probe_states_how_it_chose(run: Run) -> None:
    values = run(draw_blobs(), transductive="videos").to_json()
    assert values["protocol"] == "linear_probe" and values["transductive"] == "videos"
    assert values["choice"]["value"] in [trial["value"] for trial in values["choice"]["tried"]]
    assert "120" in values["choice"]["method"]
    assert values["training_videos"] == 120


@both_solvers
def test_probe_label_without_training_videos_counts_as_wrong(run: Run) -> None:
    blobs = draw_blobs()
    kept = [row for row, name in enumerate(blobs.train_truth) if name != "run"]
    partial = Blobs(
        blobs.train[kept], [blobs.train_truth[r] for r in kept], blobs.test, blobs.test_truth
    )
    result = run(partial)
    assert result.untrained_labels == ("run",)
    assert result.per_class["run"] == (0, 20)
    # It is the last of each video's ranking.
    assert {ranked[-1] for ranked in result.ranking} == {LABELS.index("run")}


@both_solvers
def test_probe_label_without_test_videos_has_no_accuracy(run: Run) -> None:
    blobs = draw_blobs()
    kept = [row for row, name in enumerate(blobs.test_truth) if name != "run"]
    result = run(
        Blobs(blobs.train, blobs.train_truth, blobs.test[kept], [blobs.test_truth[r] for r in kept])
    )
    assert set(result.per_class) == {"cook", "dive", "sing"}


@both_solvers
def test_probe_one_label_is_refused(run: Run) -> None:
    blobs = draw_blobs()
    with pytest.raises(DataError, match="'cook'"):
        run(Blobs(blobs.train, ["cook"] * 120, blobs.test, blobs.test_truth))


@both_solvers
def test_probe_nothing_to_hold_out_is_refused(run: Run) -> None:
    blobs = draw_blobs(num_train=4)
    with pytest.raises(DataError, match="4 videos"):
        run(blobs)


@both_solvers
def test_probe_unknown_test_label_is_refused(run: Run) -> None:
    blobs = draw_blobs()
    with pytest.raises(DataError, match="fly"):
        run(Blobs(blobs.train, blobs.train_truth, blobs.test, ["fly"] * 80))


@both_solvers
def test_probe_empty_test_split_is_refused(run: Run) -> None:
    blobs = draw_blobs()
    with pytest.raises(DataError, match="no video"):
        run(Blobs(blobs.train, blobs.train_truth, blobs.test[:0], []))


@both_solvers
@pytest.mark.parametrize("split", ["train", "test"])
def test_probe_damaged_features_are_refused(run: Run, split: str) -> None:
    blobs = draw_blobs()
    getattr(blobs, split)[2, 1] = float("nan")
    with pytest.raises(DataError, match="finite"):
        run(blobs)


def test_sgd_probe_given_rate_is_taken_as_it_is() -> None:
    settings = SgdSettings(learning_rates=(0.3,), num_epochs=2)
    choice = run_sgd(draw_blobs(num_train=4), settings=settings).choice
    assert (choice.value, choice.method, choice.trials) == (0.3, "given", ())


def test_convex_probe_too_few_iterations_are_counted() -> None:
    settings = ConvexSettings(inverse_penalties=(100.0,), max_iterations=1)
    assert run_convex(draw_blobs(), settings=settings).num_unconverged == 1


def test_convex_probe_two_labels_are_told_apart() -> None:
    blobs = draw_blobs()
    train = [row for row, name in enumerate(blobs.train_truth) if name in ("dive", "sing")]
    test = [row for row, name in enumerate(blobs.test_truth) if name in ("dive", "sing")]
    result = run_convex(
        Blobs(
            blobs.train[train],
            [blobs.train_truth[row] for row in train],
            blobs.test[test],
            [blobs.test_truth[row] for row in test],
        )
    )
    assert result.top1 > 0.8
    assert result.untrained_labels == ("cook", "run")


def test_average_slow_fast_by_hand() -> None:
    slow = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # two views
    fast = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(average_slow_fast(slow, fast), torch.tensor([[1.0, 2.0]]))


@pytest.mark.parametrize("num_folds", [2, 3, 5])
def test_assign_folds_shares_each_label_evenly(num_folds: int) -> None:
    targets = np.repeat([0, 1, 2, 3], [11, 2, 30, 1])
    folds = assign_folds(targets, num_folds=num_folds, seed=4)
    assert set(folds.tolist()) == set(range(num_folds))
    for label in range(4):
        sizes = np.bincount(folds[targets == label], minlength=num_folds)
        assert sizes.max() - sizes.min() <= 1
    assert (folds != assign_folds(targets, num_folds=num_folds, seed=5)).any()
