"""What evaluates a checkpoint for a session: a process that may die, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lssl_ray.errors import DataError
from lssl_ray.types import ClipFailure


class ValidatorEndedError(Exception):
    """The process that evaluates is gone; another one may do better."""


class EvaluationRefusedError(DataError):
    """The checkpoint or the videos can't be evaluated, by whatever process."""


@dataclass(frozen=True)
class Verdict:
    """What an evaluation found.

    Attributes:
        scores: By metric name.
        failures: All videos that don't decode, whichever evaluation found them first.
        seconds: It took; the first one decodes the videos.
    """

    scores: Mapping[str, float]
    failures: tuple[ClipFailure, ...]
    seconds: float


class Validator(Protocol):
    """A process that evaluates one checkpoint at a time."""

    def evaluate(self, checkpoint: Path) -> Verdict:
        """Evaluate.

        Raises:
            ValidatorEndedError: The process is gone, or was interrupted.
            EvaluationRefusedError: It said why it can't.
        """

    def interrupt(self) -> None:
        """End the process at once, called from another thread than `evaluate`."""

    def close(self) -> None:
        """End the process and give back what it holds."""


def read_reply(reply: Mapping[str, Any]) -> Verdict:
    """What `EvaluationServer.evaluate` answered.

    Raises:
        EvaluationRefusedError: A refusal.
    """
    if "refused" in reply:
        raise EvaluationRefusedError(reply["refused"])
    return Verdict(
        scores=reply["scores"],
        failures=tuple(ClipFailure(**failure) for failure in reply["failures"]),
        seconds=reply["seconds"],
    )
