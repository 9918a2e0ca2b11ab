"""The work of a process that evaluates checkpoints, whoever started it: plain data in and out."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lssl_ray.errors import LsslError
from lssl_ray.types import ClipFailure
from lssl_ray.validation.composing import build_evaluator
from lssl_ray.validation.evaluator import CheckpointEvaluator

# Training and its decoders come first where cores are short.
NICENESS = 10
NUM_THREADS = 1


class EvaluationServer:
    """Answers for a run's checkpoints; loads CLIP and decodes the videos at the first one.

    Args:
        run_folder: Holds the configuration and the concept space.
    """

    def __init__(self, run_folder: Path) -> None:
        os.nice(NICENESS)
        torch.set_num_threads(NUM_THREADS)
        self._run_folder = run_folder
        self._parts: tuple[CheckpointEvaluator, tuple[ClipFailure, ...]] | None = None

    def evaluate(self, checkpoint: str) -> dict[str, Any]:
        """Scores and failed videos, or why there are none; see `validator.read_reply`."""
        started = time.perf_counter()
        try:
            if self._parts is None:
                self._parts = build_evaluator(self._run_folder)
            evaluator, failures = self._parts
            scores = evaluator.evaluate(Path(checkpoint))
        except LsslError as error:
            return {"refused": str(error)}
        return {
            "scores": scores,
            "failures": [asdict(failure) for failure in failures],
            "seconds": round(time.perf_counter() - started, 3),
        }
