"""A sweep's folder, and the record in it from which a killed sweep goes on.

::

    runs/SWEEP/
        sweep.json          settings, every trial with values, seed, status; what a resume reads
        recipe.yaml         what all trials share
        space.py            the space as it was when the sweep began
        recipes/TRIAL.yaml  each trial's whole configuration, valid as --config
        trials/TRIAL/       its run folder, as `lssl-ray train` makes it
        logs/               the sweep's own log, each trial's output, Tune's files
        leaderboard.csv     configurations, best first
        best_recipe.yaml    the best one, valid as --config
        importance.png, parallel_coordinates.png

Every change of the record is on disk before anything follows from it. Nothing is pickled.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from lssl_ray.errors import CheckpointError
from lssl_ray.locking import find_lock, wait_until_free
from lssl_ray.sweep.trials import TrialRecord, TrialStatus
from lssl_ray.whole_files import write_whole

FORMAT_VERSION = 1
# What trial_run.py takes to leave, and a little more.
LEAVE_SECONDS = 50.0
RECORD_FILE = "sweep.json"
# Until it has ended, a trial is one of the first two.
PlannedStatus = Literal["waiting", "running", "finished", "stopped_early", "failed"]
ENDED = ("finished", "stopped_early", "failed")


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep was asked for; a resumed one keeps it.

    Attributes:
        name: Of the sweep and its folder.
        space: The space's name.
        question: What the space answers.
        search: `random`, `grid` or `optuna`.
        scheduler: `asha` or `none`.
        select: Metric key that decides; after a `-`, lower is better.
        num_configurations: To draw; None for a whole grid.
        num_seeds: Trials of each configuration.
        seed: The first seed of the trials, and that of the draws.
        working_folder: Where relative paths start.
    """

    name: str
    space: str
    question: str
    search: str
    scheduler: str
    select: str
    num_configurations: int | None
    num_seeds: int
    seed: int
    working_folder: str


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of the record.

    Attributes:
        trial_id: Names the trial, its recipe and its run folder.
        configuration: Number of its configuration, from 1.
        values: What was drawn.
        settings: What that comes to, by dotted setting.
        seed: The trial's `run.seed`.
        status: How it stands.
        reason: Why it failed or was stopped; empty else.
        num_retries: Times that it broke off and was run again.
        steps: Training steps done, known at its end.
        scores: Last value of each score, known at its end.
    """

    trial_id: str
    configuration: int
    values: dict[str, Any]
    settings: dict[str, Any]
    seed: int
    status: PlannedStatus = "waiting"
    reason: str = ""
    num_retries: int = 0
    steps: int = 0
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepFolder:
    """Paths of one sweep."""

    path: Path

    @property
    def record(self) -> Path:
        """Settings and trials."""
        return self.path / RECORD_FILE

    @property
    def base(self) -> Path:
        """What all trials share."""
        return self.path / "recipe.yaml"

    @property
    def space(self) -> Path:
        """The space, copied."""
        return self.path / "space.py"

    @property
    def trials(self) -> Path:
        """Where run folders are."""
        return self.path / "trials"

    @property
    def logs(self) -> Path:
        """Logs, and Tune's own files."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the sweep."""
        return self.path / ".sweep.lock"

    def find_recipe(self, trial_id: str) -> Path:
        """A trial's whole configuration."""
        return self.path / "recipes" / f"{trial_id}.yaml"

    def find_log(self, trial_id: str) -> Path:
        """What a trial printed."""
        return self.logs / "trials" / f"{trial_id}.log"

    def find_lock(self, trial_id: str) -> Path:
        """Held by the process that runs a trial; see `trial_run.py`."""
        return find_lock(self.trials / trial_id)


class SweepRecord:
    """Settings and trials, on disk as they are here.

    Args:
        folder: The sweep's.
        settings: As the sweep was started.
        trials: Known so far.
    """

    def __init__(
        self, folder: SweepFolder, settings: SweepSettings, trials: list[PlannedTrial]
    ) -> None:
        self.folder = folder
        self.settings = settings
        self._trials = {trial.trial_id: trial for trial in trials}
        self._ending: dict[str, Any] = {}

    @property
    def trials(self) -> list[PlannedTrial]:
        """All that are known, in the order in which they were planned."""
        return list(self._trials.values())

    @property
    def num_configurations(self) -> int:
        """Configurations drawn so far."""
        return max((trial.configuration for trial in self._trials.values()), default=0)

    def get(self, trial_id: str) -> PlannedTrial:
        """One trial."""
        return self._trials[trial_id]

    def plan(self, values: dict[str, Any], settings: dict[str, Any]) -> None:
        """Add a configuration: a trial per seed."""
        number = self.num_configurations + 1
        for offset in range(self.settings.num_seeds):
            seed = self.settings.seed + offset
            trial_id = f"c{number:03d}-s{seed}"
            self._trials[trial_id] = PlannedTrial(trial_id, number, values, settings, seed)
        self.save()

    def change(self, trial_id: str, **changes: Any) -> None:
        """Replace what is known of a trial."""
        self._trials[trial_id] = replace(self._trials[trial_id], **changes)
        self.save()

    def finish(self, ending: dict[str, Any]) -> None:
        """Add what came out of the whole sweep."""
        self._ending = ending
        self.save()

    def save(self) -> None:
        """Write the record, whole or not at all."""
        data = {
            "version": FORMAT_VERSION,
            **asdict(self.settings),
            **self._ending,
            "trials": [asdict(trial) for trial in self._trials.values()],
        }
        text = json.dumps(data, indent=1, ensure_ascii=False)
        write_whole(self.folder.record, text + "\n")

    def wait_for_trials(self) -> None:
        """Wait until no process of a trial is left."""
        locks = [self.folder.find_lock(trial_id) for trial_id in self._trials]
        wait_until_free(locks, seconds=LEAVE_SECONDS)

    def list_ended(self) -> list[TrialRecord]:
        """The trials that ended, for leaderboard and plots."""
        return [
            TrialRecord(
                trial_id=trial.trial_id,
                values=trial.values,
                seed=trial.seed,
                status=cast(TrialStatus, trial.status),
                steps=trial.steps,
                scores=trial.scores,
                run_folder=str(self.folder.trials / trial.trial_id),
                reason=trial.reason,
                settings=trial.settings,
            )
            for trial in self._trials.values()
            if trial.status in ENDED
        ]


def create_record(folder: SweepFolder, settings: SweepSettings) -> SweepRecord:
    """Make the folder of a new sweep, with a record without trials.

    Raises:
        CheckpointError: It holds something already, or can't be made.
    """
    if folder.path.exists() and any(folder.path.iterdir()) and not _never_ran(folder):
        raise CheckpointError(
            f"{folder.path} is there already. Go on with a sweep: --resume {folder.path}; start "
            "another: --name OTHER."
        )
    try:
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.logs.mkdir(parents=True)
        folder.trials.mkdir()
        folder.find_recipe("any").parent.mkdir()
    except OSError as error:
        raise CheckpointError(
            f"{folder.path} can't be written: {error}. Choose another place with "
            "--set run.folder=... or --name."
        ) from error
    record = SweepRecord(folder, settings, [])
    record.save()  # what is refused or killed from here on can be begun anew
    return record


def open_record(path: Path) -> SweepRecord:
    """The record of an existing sweep.

    Raises:
        CheckpointError: There is none, or it can't be read.
    """
    folder = SweepFolder(path)
    if not folder.record.is_file():
        near = sorted(other.parent.name for other in path.parent.glob(f"*/{RECORD_FILE}"))
        raise CheckpointError(
            f"No sweep to resume at {path}. Sweeps there: {', '.join(near) or 'none'}."
        )
    try:
        data = json.loads(folder.record.read_text(encoding="utf-8"))
        if data["version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder.record} has format {data['version']}, this release reads "
                f"{FORMAT_VERSION}; go on with the release that began the sweep."
            )
        settings = SweepSettings(**{name: data[name] for name in SweepSettings.__annotations__})
        trials = [PlannedTrial(**trial) for trial in data["trials"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{folder.record} is no record of a sweep: {error!r}. Bring back a copy, or start "
            "another sweep; a run below trials/ goes on by itself: lssl-ray train --resume."
        ) from error
    return SweepRecord(folder, settings, trials)


def _never_ran(folder: SweepFolder) -> bool:
    """Whether a sweep ended before its first trial: nothing in its folder was paid for."""
    if not folder.record.is_file() or not wait_until_free([folder.lock], seconds=0.0):
        return False  # or it is about to begin, in another process
    return all(trial.status == "waiting" for trial in open_record(folder.path).trials)
