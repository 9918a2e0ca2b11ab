"""Linear probes on frozen features: SVT's protocol (SGD), and a convex solver for speed.

Features come in extracted once, from fixed views; SVT's own training augments the videos of the
probe too, which is not done here. For SVT's protocol they are the mean of a slow clip's (8 frames
at 224 px) and a fast clip's (64 frames at 96 px): `average_slow_fast`.

Either solver chooses its one hyper-parameter inside the training split. Videos are held out one by
one: where a dataset cut several from one recording (UCF101's groups), figures of the choice are
higher than those of the test; the choice itself is all that they serve.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lssl_ray.errors import DataError
from lssl_ray.evaluation.accuracy import Accuracy, compute_accuracy, index_truth
from lssl_ray.evaluation.convex_probe import (
    ConvexSettings,
    build_regression,
    choose_penalty,
    fit_regression,
)
from lssl_ray.evaluation.probe_choice import Choice
from lssl_ray.evaluation.sgd_probe import SgdSettings, choose_learning_rate, train_layer
from lssl_ray.evaluation.transductive import Reading


@dataclass(frozen=True, kw_only=True)
class LinearProbeResult(Accuracy):
    """Accuracy of a linear probe.

    Attributes:
        solver: `sgd` or `convex`.
        choice: The hyper-parameter that was chosen, and how.
        settings: The solver's settings.
        num_train: Training videos.
        num_unconverged: Fits of the convex solver, the choice's included, that stopped at the limit
            of iterations.
        untrained_labels: Labels without a training video; they are never predicted, so their test
            videos count as wrong.
    """

    solver: Literal["sgd", "convex"]
    choice: Choice
    settings: dict[str, Any]
    num_train: int
    num_unconverged: int
    untrained_labels: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for files."""
        return {
            "protocol": "linear_probe",
            "solver": self.solver,
            "choice": self.choice.to_json(),
            "settings": self.settings,
            "training_videos": self.num_train,
            "unconverged_fits": self.num_unconverged,
            "untrained_labels": list(self.untrained_labels),
            **super().to_json(),
        }


def average_views(features: Float[Tensor, "videos *views dim"]) -> Float[Tensor, "videos dim"]:
    """A probe's feature of a video: the mean over its views."""
    return features.flatten(1, -2).mean(dim=1) if features.ndim > 2 else features


def average_slow_fast(
    slow: Float[Tensor, "videos *slow_views dim"], fast: Float[Tensor, "videos *fast_views dim"]
) -> Float[Tensor, "videos dim"]:
    """SVT's feature of a video: the mean of its slow and its fast clip's, in the same order."""
    return (average_views(slow) + average_views(fast)) / 2


def run_linear_probe(
    train_features: Float[Tensor, "train dim"],
    *,
    train_truth: Sequence[str],
    test_features: Float[Tensor, "test dim"],
    test_truth: Sequence[str],
    labels: Sequence[str],
    settings: SgdSettings | ConvexSettings,
    transductive: Reading = "not stated",
) -> LinearProbeResult:
    """Fit a linear probe on the training split and score the test split.

    Args:
        train_features: Features of the training split.
        train_truth: Their labels.
        test_features: Features of the test split; used once, after the choice.
        test_truth: Their labels; used for counting only.
        labels: Names that may be predicted.
        settings: Of the solver, which they name: SVT's protocol, or logistic regression.
        transductive: See `transductive`.

    Raises:
        DataError: No videos, labels not in the list, fewer than two labels to learn, nothing to
            hold out, or damaged features.
    """
    known, targets = _prepare(train_features, train_truth, labels)
    _check(test_features, test_truth, labels, name="test")
    if isinstance(settings, SgdSettings):
        solved = _solve_by_sgd(train_features, targets, test_features, settings)
    else:
        solved = _solve_convex(train_features, targets, test_features, settings)
    scores = _spread(solved.scores, known, len(labels))
    accuracy = compute_accuracy(scores, labels=labels, truth=test_truth, transductive=transductive)
    trained = set(known.tolist())
    return LinearProbeResult(
        **vars(accuracy),
        solver=solved.solver,
        choice=solved.choice,
        settings={**solved.fixed, **asdict(settings)},
        num_train=len(targets),
        num_unconverged=solved.num_unconverged,
        untrained_labels=tuple(label for index, label in enumerate(labels) if index not in trained),
    )


@dataclass(frozen=True)
class _Solved:
    """What a solver found: scores of the test videos over the labels that have training videos."""

    solver: Literal["sgd", "convex"]
    scores: Float[Tensor, "test known"]
    choice: Choice
    num_unconverged: int
    fixed: dict[str, Any]  # settings that nobody can change


def _solve_by_sgd(
    train_features: Float[Tensor, "train dim"],
    targets: Int64[Tensor, "train"],
    test_features: Float[Tensor, "test dim"],
    settings: SgdSettings,
) -> _Solved:
    num_labels = int(targets.max()) + 1
    choice = choose_learning_rate(
        train_features, targets=targets, num_labels=num_labels, settings=settings
    )
    layer = train_layer(
        train_features,
        targets=targets,
        num_labels=num_labels,
        learning_rate=choice.value,
        settings=settings,
    )
    with torch.no_grad():
        scores = layer(test_features.float())
    fixed = {"momentum": 0.9, "weight_decay": 0.0, "schedule": "cosine"}
    return _Solved("sgd", scores, choice, num_unconverged=0, fixed=fixed)


def _solve_convex(
    train_features: Float[Tensor, "train dim"],
    targets: Int64[Tensor, "train"],
    test_features: Float[Tensor, "test dim"],
    settings: ConvexSettings,
) -> _Solved:
    features, indices = train_features.double().numpy(), targets.numpy()
    choice, num_unconverged = choose_penalty(features, targets=indices, settings=settings)
    model = build_regression(settings, inverse_penalty=choice.value)
    num_unconverged += fit_regression(model, features, targets=indices)
    log_shares = torch.from_numpy(model.predict_log_proba(test_features.double().numpy()))
    scores = log_shares.clamp_min(torch.finfo(torch.float64).min / 2)
    return _Solved("convex", scores, choice, num_unconverged, fixed={})


def _prepare(
    features: Float[Tensor, "train dim"], truth: Sequence[str], labels: Sequence[str]
) -> tuple[Int64[Tensor, "known"], Int64[Tensor, "train"]]:
    """The labels that have training videos, and per video an index among those."""
    targets = _check(features, truth, labels, name="training")
    known, compact = targets.unique(return_inverse=True)
    if len(known) < 2:
        raise DataError(
            f"All {len(targets)} training videos have the label {truth[0]!r}; a probe needs at "
            "least two labels to tell apart. Check the training split's labels."
        )
    return known, compact


def _spread(
    scores: Float[Tensor, "videos known"], known: Int64[Tensor, "known"], num_labels: int
) -> Float[Tensor, "videos labels"]:
    """Scores over all labels: untrained ones come after every trained one."""
    spread = scores.new_full((len(scores), num_labels), torch.finfo(scores.dtype).min)
    spread[:, known] = scores
    return spread


def _check(
    features: Float[Tensor, "videos dim"], truth: Sequence[str], labels: Sequence[str], *, name: str
) -> Int64[Tensor, "videos"]:
    """The label index of each video, when features and labels can be used."""
    targets = index_truth(truth, labels)
    if len(features) != len(targets):
        raise DataError(
            f"{len(features)} rows of {name} features for {len(targets)} labels; give one label "
            "per row."
        )
    if not features.isfinite().all():
        raise DataError(
            f"The {name} features hold values that are not finite numbers; the model's weights or "
            "the cached features are damaged. Extract the features again."
        )
    return targets
