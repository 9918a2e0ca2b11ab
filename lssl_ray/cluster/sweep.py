"""A sweep's trials on Ray Tune: who runs when, who is stopped early, who is tried again.

What is run next and what came of it is the `Conductor`'s, who files it in a form of our own: Tune's
state, which would have to be unpickled, is never read back.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from lssl_ray.cluster.conducting import ConductedSearch, Conductor, Messenger, Room
from lssl_ray.cluster.trial import PROGRESS, SCORE, run_trial
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


def run_trials(
    conductor: Conductor,
    *,
    room: Room,
    scheduler: Scheduler,
    past: Mapping[str, Sequence[Score]],
    folder: Path,
    name: str,
) -> None:
    """Run trials on the connected Ray until the conductor has no more.

    Args:
        conductor: Gives trials, and hears of them.
        room: How many at once, by now.
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
            search_alg=ConductedSearch(conductor, room),
            scheduler=judge,
            num_samples=-1,  # until the conductor has no more
            reuse_actors=False,
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(folder),
            callbacks=[Messenger(conductor)],
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


def _name_trial(trial: Any) -> str:
    return str(trial.config["trial_id"])
