"""Logistic regression on frozen features, its penalty chosen by cross-validation.

`linear_probe` is what evaluations call; no test video comes here.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from lssl_ray.evaluation.probe_choice import Choice, Trial, assign_folds, choose

Scaling = Literal["standardise", "unit"]


@dataclass(frozen=True)
class ConvexSettings:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS.

    Attributes:
        inverse_penalties: scikit-learn's C, tried by cross-validation; one value is taken as it is.
        scaling: `standardise` each dimension by the training videos' mean and deviation, or make
            features of equal length (`unit`): the root of their dimension, so that their values
            are as large as standardised ones, and C and the tolerance mean the same.
        num_folds: Parts of the training split, each held out once.
        max_iterations: Of the solver.
        tolerance: Largest gradient entry at which the solver stops.
        seed: Of the folds.
    """

    inverse_penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    scaling: Scaling = "standardise"
    num_folds: int = 3
    max_iterations: int = 1000
    tolerance: float = 1e-4
    seed: int = 0


def choose_penalty(
    features: NDArray[np.floating], *, targets: NDArray[np.int64], settings: ConvexSettings
) -> tuple[Choice, int]:
    """C by cross-validation, and how many fits did not converge.

    Raises:
        DataError: Nothing can be held out.
    """
    values = settings.inverse_penalties
    if len(values) == 1:
        return Choice("C", values[0], "given", ()), 0
    # The choice needs no more than float32, which halves its time; the probe itself has float64.
    features = features.astype(np.float32)
    folds = assign_folds(targets, num_folds=settings.num_folds, seed=settings.seed)
    num_right, losses = np.zeros(len(values)), np.zeros(len(values))
    num_unconverged = 0
    for fold in range(settings.num_folds):
        kept, held = folds != fold, folds == fold
        model = build_regression(settings, inverse_penalty=values[0])
        # From strong to weak penalties, each fit starts where the last one ended.
        model.set_params(regression__warm_start=True)
        for index in np.argsort(values):
            model.set_params(regression__C=values[index])
            num_unconverged += fit_regression(model, features[kept], targets=targets[kept])
            shares = model.predict_proba(features[held]).astype(np.float64)  # [held, fitted labels]
            classes = model.classes_
            num_right[index] += (classes[shares.argmax(axis=1)] == targets[held]).sum()
            # A label whose only video is held out has no share.
            rows, columns = np.nonzero(targets[held][:, None] == classes)
            own = np.zeros(len(shares))
            own[rows] = shares[rows, columns]
            losses[index] -= np.log(np.maximum(own, np.finfo(np.float64).tiny)).sum()
    trials = [
        Trial(value, float(right / len(targets)), float(loss / len(targets)))
        for value, right, loss in zip(values, num_right, losses, strict=True)
    ]
    method = (
        f"best accuracy in {settings.num_folds}-fold cross-validation on the training split's "
        f"{len(targets)} videos, then fitted on all of them; the test split took no part"
    )
    return choose("C", trials, method=method), num_unconverged


def build_regression(settings: ConvexSettings, *, inverse_penalty: float) -> Pipeline:
    """Scaling and regression as one scikit-learn model, not fitted."""
    regression = LogisticRegression(
        C=inverse_penalty,
        solver="lbfgs",
        max_iter=settings.max_iterations,
        tol=settings.tolerance,
    )
    scaler = StandardScaler() if settings.scaling == "standardise" else FunctionTransformer(_level)
    return Pipeline([("scaler", scaler), ("regression", regression)])


def _level(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows of length root of dimension: of values around 1, whatever the dimension."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    tiny = np.finfo(features.dtype).tiny
    levelled: NDArray[np.floating] = features / np.maximum(lengths, tiny) * features.shape[1] ** 0.5
    return levelled


def fit_regression(
    model: Pipeline, features: NDArray[np.floating], *, targets: NDArray[np.int64]
) -> int:
    """Fit; 1 if the solver stopped before it converged, else 0. Other warnings are passed on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, targets)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return int(any(issubclass(warning.category, ConvergenceWarning) for warning in caught))
