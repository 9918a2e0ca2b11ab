"""`classify` behind MLflow's `pyfunc`: what `mlflow models serve` loads and asks.

MLflow calls `_load_pyfunc` of this module by its name with the exported folder: nothing is
pickled, and this module knows nothing of MLflow. A request is a table with a column `path` (a file
that the server can read) or `base64` (the bytes of a video file), and may choose the labels.
"""

import base64
import binascii
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lssl_ray.errors import DataError
from lssl_ray.inference import VideoModel, load_model
from lssl_ray.predictions import Prediction

COLUMNS = ("path", "base64")


class VideoClassifier:
    """Answers requests; see `predict`."""

    def __init__(self, model: VideoModel) -> None:
        self._model = model

    def predict(
        self, model_input: Any, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Classify the videos of a request.

        Args:
            model_input: pandas table, a row per video with `path` or `base64`.
            params: `labels`, none for those of the model; `top_k`, default 5.

        Returns:
            Per row `labels` and `scores`, best first, or a `reason` and `detail` why it gave no
            frames.

        Raises:
            DataError: A row without a video, or no labels to choose from.
        """
        params = params or {}
        labels = list(params.get("labels") or self._model.labels or ())
        if not labels:
            raise DataError("This model came without labels; send params.labels, two or more.")
        rows = model_input.to_dict(orient="records")
        if not rows:
            raise DataError("The request has no video; give rows with `path` or `base64`.")
        return [
            self._classify(row, labels, top_k=int(params.get("top_k") or 5), number=number)
            for number, row in enumerate(rows)
        ]

    def _classify(
        self, row: Mapping[str, Any], labels: Sequence[str], *, top_k: int, number: int
    ) -> dict[str, Any]:
        # Columns that a row leaves out come as None or NaN.
        given = {name: row[name] for name in COLUMNS if isinstance(row.get(name), str | bytes)}
        if len(given) != 1:
            raise DataError(
                f"Row {number} has {sorted(given) or 'no video'}; give `path` or `base64`, one of "
                "the two."
            )
        if "path" in given:
            return _to_json(self._model.classify(given["path"], labels, top_k=top_k)[0])
        try:
            content = base64.b64decode(given["base64"], validate=True)
        except binascii.Error as error:
            raise DataError(f"Row {number}: `base64` is not base64 ({error}).") from error
        with tempfile.TemporaryDirectory(prefix="lssl_ray_") as folder:
            path = Path(folder) / "video"
            path.write_bytes(content)
            return _to_json(self._model.classify(path, labels, top_k=top_k)[0])


def _to_json(prediction: Prediction) -> dict[str, Any]:
    failure = prediction.failure
    return {
        "labels": list(prediction.labels),
        "scores": list(prediction.scores),
        "reason": None if failure is None else failure.reason,
        "detail": None if failure is None else failure.detail,
    }


def _load_pyfunc(data_path: str) -> VideoClassifier:
    """MLflow's entry: the exported folder becomes a model."""
    return VideoClassifier(load_model(data_path))
