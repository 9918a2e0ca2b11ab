"""A sweep's trials on Ray Tune: who runs when, who is stopped early, who is tried again.

What is run next and what came of it is the `Conductor`'s, who files it in a form of our own: Tune's
state, which would have to be unpickled, is never read back.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from lssl_ray.cluster.capacity import choose_concurrency, count_cores, list_needs, list_rooms
from lssl_ray.cluster.session import SPARE_BYTES, connect_ray
from lssl_ray.cluster.trial import (
    FINISHED,
    OUTCOME,
    PROGRESS,
    REASON,
    SCORE,
    STEP,
    TrialTask,
    run_trial,
)
from lssl_ray.config import RunConfig
from lssl_ray.errors import ClusterError
from lssl_ray.sweep.scores import Score
from lssl_ray.sweep.trials import Scheduler

# Of what reaches a quarter and a half of its steps, the lower half is stopped.
FIRST_RUNG, REDUCTION = 25.0, 2
# Below 100, so that nothing is stopped for being done.
LAST_RUNG = 99.0
# Runs of a trial that break off, beside its first; workers have cluster.max_failures of their own.
TRIAL_RETRIES = 2
# Ctrl-C ends the sweep at once, to be resumed; nobody reads Tune's own tables and event files.
_QUIET = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class Conductor(Protocol):
    """Decides what is run, and is told what comes of it; called from one thread."""

    def draw_trial(self) -> TrialTask | None:
        """The next trial; None when there is none left."""

    def note_score(self, trial_id: str, score: Score) -> None:
        """A running trial has a score."""

    def note_retry(self, trial_id: str, reason: str) -> None:
        """A trial broke off and is run again, from its checkpoint."""

    def note_end(self, trial_id: str, status: str, reason: str) -> None:
        """A trial is `finished`, `stopped_early` or `failed`."""


def start_ray_for_sweep(config: RunConfig, *, wanted: int | None) -> int:
    """Start or join Ray; returns how many trials run at once.

    A Ray of our own gets as many logical cores as the trials need; without a wish as many trials
    as the machine's real cores hold, and one on a small machine.

    Args:
        config: What all trials share.
        wanted: Trials at once; None for what fits.

    Raises:
        ClusterError: Ray can't be started or found, or not so many trials fit.
    """
    cluster = config.cluster
    if cluster.address == "local":
        cores = count_cores(list_needs(config))
        if wanted is None and not cluster.use_gpu:
            wanted = max(1, (os.cpu_count() or 1) // cores)
        # With GPUs, those are what decides.
        num_trials = wanted or max(1, _count_gpus() // cluster.num_workers)
        memory = cluster.num_decoders * cluster.decode_memory_mib * 2**20
        connect_ray(
            address="local",
            num_cpus=num_trials * cores,
            memory_bytes=num_trials * memory + SPARE_BYTES,
            remedy="cluster.address=local; to join a cluster, --set cluster.address=auto",
        )
    else:
        connect_ray(address="auto", num_cpus=0, remedy="cluster.address=auto")
    return choose_concurrency(config, list_rooms(ray.nodes()), wanted=wanted)


def run_trials(
    conductor: Conductor,
    *,
    concurrency: int,
    scheduler: Scheduler,
    past: Mapping[str, Sequence[Score]],
    folder: Path,
    name: str,
) -> None:
    """Run trials on the connected Ray until the conductor has no more.

    Args:
        conductor: Gives trials, and hears of them.
        concurrency: At once.
        scheduler: What may stop trials early.
        past: Scores of trials that ended in earlier sessions, so that new ones compete with them.
        folder: For Tune's own files.
        name: Of this session; a new one each time.

    Raises:
        ClusterError: Tune itself broke off.
    """
    for variable, text in _QUIET.items():
        os.environ.setdefault(variable, text)
    judge = build_scheduler(scheduler)
    tell_past(judge, past)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, tune.PlacementGroupFactory([_find_place()])),
        tune_config=tune.TuneConfig(
            search_alg=_ConductedSearch(conductor),
            scheduler=judge,
            num_samples=-1,  # until the conductor has no more
            max_concurrent_trials=concurrency,
            reuse_actors=False,
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(folder),
            callbacks=[_Messenger(conductor)],
            failure_config=tune.FailureConfig(max_failures=TRIAL_RETRIES),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError as error:
        raise ClusterError(
            f"Ray Tune gave up: {error}. Its own words are in {folder.parent}; go on with --resume."
        ) from error


def build_scheduler(scheduler: Scheduler) -> TrialScheduler:
    """What decides who is stopped early, by `SCORE` at `PROGRESS`; higher is better."""
    if scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr=PROGRESS,
        metric=SCORE,
        mode="max",
        max_t=LAST_RUNG,
        grace_period=FIRST_RUNG,
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )


def tell_past(scheduler: TrialScheduler, past: Mapping[str, Sequence[Score]]) -> None:
    """Let earlier sessions' trials set the marks; what they did can't be undone."""
    for trial_id, scores in past.items():
        trial = cast(Any, SimpleNamespace(trial_id=trial_id))
        scheduler.on_trial_add(None, trial)
        for score in scores:
            result = {SCORE: score.value, PROGRESS: score.progress}
            scheduler.on_trial_result(None, trial, result)


class _ConductedSearch(Searcher):  # type: ignore[misc]  # Any to mypy
    """Tune's searcher that asks the conductor."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._conductor = conductor

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune files what it runs; this one is never read back

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Nothing is taken from Tune's own space."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial."""
        task = self._conductor.draw_trial()
        return Searcher.FINISHED if task is None else asdict(task)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Told by `_Messenger`, which knows more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""


class _Messenger(tune.Callback):  # type: ignore[misc]  # Any to mypy
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


def _find_place() -> dict[str, float]:
    """Resources that put a trial's driver on this node, as `lssl-ray train` here would be.

    It takes no core: the training's own processes are what is counted.
    """
    here = ray.get_runtime_context().get_node_id()
    (node,) = [node for node in ray.nodes() if node["NodeID"] == here]
    (name,) = [
        name
        for name in node["Resources"]
        if name.startswith("node:") and name != "node:__internal_head__"
    ]
    return {name: 0.0001}


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _name_trial(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _read_reason(trial: Any) -> str:
    """The last line that Tune filed of a trial's failures."""
    # `get_error` reads a copy that is made later.
    file = trial.error_file
    text = Path(file).read_text(encoding="utf-8") if file and Path(file).exists() else ""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "its process ended without a word"
