"""Between Ray Tune and who decides what is run: Tune asks for trials and tells what came of them.

Nothing of it is read back from Tune's own files.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.search import Searcher

from lssl_ray.cluster.trial import FINISHED, OUTCOME, PROGRESS, REASON, SCORE, STEP, TrialTask
from lssl_ray.sweep.scores import Score


class Conductor(Protocol):
    """Decides what is run, and is told what comes of it; called from one thread."""

    def draw_trial(self) -> TrialTask | None:
        """The next trial; None when there is none left."""

    def count_left(self) -> int:
        """How many trials `draw_trial` could still give."""

    def note_score(self, trial_id: str, score: Score) -> None:
        """A running trial has a score."""

    def note_retry(self, trial_id: str, reason: str) -> None:
        """A trial broke off and is run again, from its checkpoint."""

    def note_end(self, trial_id: str, status: str, reason: str) -> None:
        """A trial is `finished`, `stopped_early` or `failed`."""


class Room(Protocol):
    """How many trials may run by now; see `room.TrialRoom`."""

    def count(self) -> int:
        """At once."""

    def ask(self, num_trials: int) -> None:
        """So many more could run."""


class ConductedSearch(Searcher):  # type: ignore[misc]  # Any to mypy
    """Tune's searcher that asks the conductor, for no more trials than there is room for.

    Args:
        conductor: Gives trials.
        room: Asked each time, because nodes come and go.
    """

    def __init__(self, conductor: Conductor, room: Room) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._conductor = conductor
        self._room = room
        self._running: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune files what it runs; this one is never read back

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Nothing is taken from Tune's own space."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial; None while there is no room for one."""
        if len(self._running) >= self._room.count():
            self._room.ask(self._conductor.count_left())
            return None
        task = self._conductor.draw_trial()
        if task is None:
            self._room.ask(0)
            return Searcher.FINISHED
        self._running.add(trial_id)
        return asdict(task)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """There is room again; what came of the trial is told by `Messenger`, which knows more."""
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""


class Messenger(tune.Callback):  # type: ignore[misc]  # Any to mypy
    """Tells the conductor what Tune sees."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A score."""
        if result[SCORE] == result[SCORE]:  # none at all is reported as NaN
            score = Score(result[STEP], result[PROGRESS], result[SCORE])
            self._conductor.note_score(trial.config["trial_id"], score)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The end of a trial, by itself or by the scheduler."""
        last, trial_id = trial.last_result, trial.config["trial_id"]
        outcome = last.get(OUTCOME)
        if outcome == FINISHED:
            self._conductor.note_end(trial_id, "finished", "")
        elif outcome is not None:
            self._conductor.note_end(trial_id, "failed", last[REASON])
        else:
            reason = f"stopped at {last[PROGRESS]:.0f} % of its steps: the lower half there"
            self._conductor.note_end(trial_id, "stopped_early", reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A failure that is tried again."""
        self._conductor.note_retry(trial.config["trial_id"], _read_reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A failure for good."""
        self._conductor.note_end(trial.config["trial_id"], "failed", _read_reason(trial))


def _read_reason(trial: Any) -> str:
    """The last line that Tune filed of a trial's failures."""
    # `get_error` reads a copy that is made later.
    file = trial.error_file
    text = Path(file).read_text(encoding="utf-8") if file and Path(file).exists() else ""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "its process ended without a word"
