"""`lssl-ray sweep`: plans trials, has Ray Tune run them, and keeps the record of what came out."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from lssl_ray.commands import logging_to, sigterm_as_exit
from lssl_ray.display import RunDisplay
from lssl_ray.errors import ConfigError
from lssl_ray.folder import RunFolder
from lssl_ray.locking import holding
from lssl_ray.sweep.recipe import write_best_recipe
from lssl_ray.sweep.scores import DONE, Score, ScoreReader, load_last_scores
from lssl_ray.sweep.trials import Scheduler, Search
from lssl_ray.sweeping.filing import (
    SweepTracker,
    close_broken_off_runs,
    drop_decoded,
    file_results,
    open_sweep_tracker,
)
from lssl_ray.sweeping.record import ENDED, PlannedTrial, SweepRecord
from lssl_ray.sweeping.request import (
    OpenSweep,
    SweepRequest,
    create_sweep,
    find_working_folder,
    list_remarks,
    open_sweep,
)
from lssl_ray.tracking.following import closing_honestly

if TYPE_CHECKING:  # Ray is imported when a sweep is there to run
    from lssl_ray.cluster.room import TrialRoom
    from lssl_ray.cluster.search import Source
    from lssl_ray.cluster.trial import TrialTask


def sweep(
    request: SweepRequest | None,
    *,
    resume: str | None,
    max_concurrent: int | None,
    display: RunDisplay,
) -> dict[str, Any]:
    """Run a sweep, or go on with one; returns what came out, as `sweep.json` has it.

    Args:
        request: Of a new sweep.
        resume: Folder or name of a sweep to go on with; one of the two is None.
        max_concurrent: Trials at once; None for what fits.
        display: For a person.

    Raises:
        LsslError: What stopped the sweep, or that no trial finished.
    """
    display.show_phase("Checking the space")
    if resume is not None:
        opened = open_sweep(resume)
    elif request is not None:
        opened = create_sweep(request)
    else:
        raise ConfigError("A sweep needs --space FILE, or --resume NAME to go on with one.")
    record = opened.record
    with (
        holding(record.folder.lock, what=str(record.folder.path)),
        logging_to(record.folder.logs / "sweep.log"),
        sigterm_as_exit(),
    ):
        source = _open_source(opened)
        tracker = open_sweep_tracker(record, opened.base)
        with closing_honestly(tracker.run):
            try:
                _run(opened, source, tracker, max_concurrent, display)
            except BaseException:  # Ctrl-C and a terminated job, too
                close_broken_off_runs(record, opened.base, display)
                raise
            ending = file_results(record, opened.base, tracker, display)
    return ending


class SweepConductor:
    """Plans trials one by one and files what comes of them; see `cluster.conducting.Conductor`.

    Args:
        opened: The sweep.
        source: Draws configurations.
        overrides: Settings that the sweep gives each trial: where it is tracked.
        display: For a person.
    """

    def __init__(
        self,
        opened: OpenSweep,
        source: "Source",
        *,
        overrides: dict[str, Any],
        display: RunDisplay,
    ) -> None:
        self._record = opened.record
        self._base = opened.base
        self._space = opened.space
        self._source = source
        self._overrides = overrides
        self._display = display
        self._progress: dict[str, float] = {}  # shares of trials that have not ended
        # Once: Ray may lay a job's folder anew under its name, and then there is no current one.
        self._working_folder = find_working_folder(self._record.settings.working_folder)
        for trial in self._record.trials:
            if trial.status == "running":  # when the sweep was killed
                self._record.change(trial.trial_id, status="waiting")
        for configuration in {trial.configuration for trial in self._record.trials}:
            self._teach(configuration)

    def draw_trial(self) -> "TrialTask | None":
        """The next waiting trial, of a new configuration when there is none."""
        trial = self._find_waiting()
        if trial is None:
            values = self._source.draw()
            if values is None:
                return None
            self._record.plan(values, self._space.compute_settings(values))
            trial = self._find_waiting()
        assert trial is not None
        from lssl_ray.cluster.trial import TrialTask

        folder = self._record.folder
        recipe = folder.find_recipe(trial.trial_id)
        own = {
            "run.name": trial.trial_id,
            "run.folder": str(folder.trials),  # where the sweep is by now
            "run.seed": trial.seed,
            **self._overrides,
            "tracking.tags": {
                **self._base.tracking.tags,
                "lssl.sweep": self._record.settings.name,
                "lssl.space": self._record.settings.space,
                "lssl.configuration": f"c{trial.configuration:03d}",
                "lssl.trial": trial.trial_id,
            },
        }
        header = [f"Trial {trial.trial_id} of the sweep {self._record.settings.name}."]
        write_best_recipe(self._base, {**trial.settings, **own}, recipe, header=header)
        self._record.change(trial.trial_id, status="running")
        self._show()
        return TrialTask(
            trial_id=trial.trial_id,
            command=(sys.executable, "-m", "lssl_ray.sweeping.trial_run", str(recipe)),
            working_folder=self._working_folder,
            run_folder=str(folder.trials / trial.trial_id),
            log=str(folder.find_log(trial.trial_id)),
            key=self._record.settings.select,
        )

    def count_left(self) -> int:
        """Trials that wait, and those of configurations that are still to be drawn."""
        num_waiting = sum(trial.status == "waiting" for trial in self._record.trials)
        return num_waiting + self._source.count_left() * self._record.settings.num_seeds

    def note_score(self, trial_id: str, score: Score) -> None:
        """Show how far a trial is, and the best of all."""
        trial = self._record.get(trial_id)
        scores = {**trial.scores, self._record.settings.select: score.value}
        self._progress[trial_id] = score.progress / DONE
        self._record.change(trial_id, steps=score.step, scores=scores)
        self._show()

    def note_retry(self, trial_id: str, reason: str) -> None:
        """Say that a trial is run again."""
        num_retries = self._record.get(trial_id).num_retries + 1
        self._record.change(trial_id, num_retries=num_retries)
        self._display.show_lines(f"{trial_id} broke off and goes on from its checkpoint: {reason}")

    def note_end(self, trial_id: str, status: str, reason: str) -> None:
        """File how a trial ended, and let the search learn of it."""
        select = self._record.settings.select
        metrics = RunFolder(self._record.folder.trials / trial_id).metrics
        steps, scores = load_last_scores(metrics, select=select)
        self._record.change(trial_id, status=status, reason=reason, steps=steps, scores=scores)
        self._progress.pop(trial_id, None)
        drop_decoded(self._record)
        self._teach(self._record.get(trial_id).configuration)
        told = f"{scores[select]:.4f}" if select in scores else "without a score"
        self._display.show_lines(
            f"{trial_id} {status.replace('_', ' ')}: {told}{f' ({reason})' if reason else ''}"
        )
        self._show()

    def _find_waiting(self) -> PlannedTrial | None:
        waiting = (trial for trial in self._record.trials if trial.status == "waiting")
        return next(waiting, None)

    def _teach(self, configuration: int) -> None:
        """Tell the search of a configuration whose trials have all ended."""
        trials = [trial for trial in self._record.trials if trial.configuration == configuration]
        select = self._record.settings.select
        scores = [trial.scores[select] for trial in trials if select in trial.scores]
        if scores and all(trial.status in ENDED for trial in trials):
            self._source.tell(trials[0].values, fmean(scores))

    def _show(self) -> None:
        trials = self._record.trials
        counts = Counter(trial.status for trial in trials)
        select = self._record.settings.select
        scored = [trial for trial in trials if select in trial.scores]
        best = max(scored, key=lambda trial: trial.scores[select], default=None)
        shown = "" if best is None else f"  best {best.scores[select]:.4f} ({best.trial_id})"
        text = (
            f"trials: {counts['running']} running, {counts['stopped_early']} stopped, "
            f"{counts['failed']} failed{shown}"
        )
        done = sum(trial.status in ENDED for trial in trials)
        total = len(trials) + self._source.count_left() * self._record.settings.num_seeds
        self._display.show_count(done, total, text, under_way=sum(self._progress.values()))


def _open_source(opened: OpenSweep) -> "Source":
    """What is still to be drawn; a list that is known beforehand is planned at once."""
    from lssl_ray.cluster.search import open_source

    record, settings = opened.record, opened.record.settings
    source = open_source(
        opened.space,
        search=cast(Search, settings.search),
        num_configurations=settings.num_configurations,
        num_drawn=record.num_configurations,
        seed=settings.seed,
    )
    if settings.search != "optuna":
        while (values := source.draw()) is not None:
            record.plan(values, opened.space.compute_settings(values))
    record.save()
    return source


def _run(
    opened: OpenSweep,
    source: "Source",
    tracker: SweepTracker,
    max_concurrent: int | None,
    display: RunDisplay,
) -> None:
    """All trials that have not ended yet."""
    from lssl_ray.cluster.sweep import run_trials

    record, settings = opened.record, opened.record.settings
    conductor = SweepConductor(opened, source, overrides=tracker.overrides, display=display)
    left = [trial for trial in record.trials if trial.status not in ENDED]
    if not left and not source.count_left():
        display.show_lines(f"All {len(record.trials)} trials of {settings.name} have ended.")
        return
    display.show_phase("Starting Ray")
    with _ray_for_sweep(opened, max_concurrent) as room:
        at_once = f"{room.count()} at once" if room.count() > 1 else "one after the other"
        at_once += ", more as nodes come" if room.can_grow else ""
        display.show_phase(f"Sweep {settings.name}: trials {at_once}, chosen by {settings.select}")
        display.show_lines(*list_remarks(opened, num_undrawn=source.count_left()))
        run_trials(
            conductor,
            room=room,
            scheduler=cast(Scheduler, settings.scheduler),
            past=_load_past(record),
            folder=record.folder.logs / "tune",
            name=_name_session(record.folder.logs / "tune"),
        )
        # Those that were stopped last still say so to MLflow and give back what they hold.
        record.wait_for_trials()


@contextmanager
def _ray_for_sweep(opened: OpenSweep, max_concurrent: int | None) -> "Iterator[TrialRoom]":
    from lssl_ray.cluster.room import open_trial_room
    from lssl_ray.cluster.session import stop_ray

    try:
        yield open_trial_room(opened.base, wanted=max_concurrent)
    finally:
        stop_ray()


def _load_past(record: SweepRecord) -> dict[str, Sequence[Score]]:
    """Scores of the trials that ended before."""
    trials, select = record.folder.trials, record.settings.select
    return {
        trial.trial_id: ScoreReader(
            RunFolder(trials / trial.trial_id).metrics, key=select
        ).read_new()
        for trial in record.trials
        if trial.status in ENDED
    }


def _name_session(folder: Path) -> str:
    """A name that Tune has not used yet: with a known one it would look for its old state."""
    taken = {path.name for path in folder.glob("*")}
    return f"session-{len(taken) + 1}"
