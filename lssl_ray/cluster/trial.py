"""One trial as Ray Tune sees it: it starts a training process and reports that one's scores.

The training is a process and a Ray job of its own, the same as `lssl-ray train` starts. In Tune's
process it would not do: Ray gives a dead trainer's cores back when its *job* ends, or when the
dashboard's state service says that it is dead, which a Ray of our own does not run. A trial that is
stopped early, or dies, would keep its cores until the end of the sweep.

Scores come from the run folder's journal, so Tune hears of them in whatever process they are made,
and a trial that goes on after a failure tells Tune its earlier ones again.
"""

import json
import math
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray import tune

from lssl_ray.sweep.scores import DONE, Score, ScoreReader
from lssl_ray.tracking.journal import METRICS_FILE

POLL_SECONDS = 0.5
EXIT_REFUSED = 2  # of the command line, for what would fail again
REFUSAL = re.compile(r"^Error ", re.MULTILINE)
MAX_REASON = 2000
SCORE, PROGRESS, STEP, OUTCOME, REASON = "score", "progress", "step", "outcome", "reason"
FINISHED, REFUSED = "finished", "refused"
# Of the process that Tune runs in; a driver of its own must not take them for its own.
_RAYS_OWN = ("RAY_JOB_ID", "RAY_NODE_ID", "RAY_RAYLET_PID", "RAY_CLIENT_MODE")


@dataclass(frozen=True)
class TrialTask:
    """What Tune's process is told; plain data.

    Attributes:
        trial_id: Names the trial.
        command: Starts, or goes on with, the training.
        working_folder: Where it starts.
        run_folder: Where its journal will be.
        log: Gets what it prints.
        key: The metric that is the score, as in `sweep.scores.ScoreReader`.
    """

    trial_id: str
    command: tuple[str, ...]
    working_folder: str
    run_folder: str
    log: str
    key: str


def run_trial(config: dict[str, Any]) -> None:
    """Tune's function trainable: a `TrialTask` as a dictionary.

    Raises:
        RuntimeError: The training broke off; Tune runs the trial again, from its checkpoint.
    """
    task = TrialTask(**config)
    metrics = Path(task.run_folder) / METRICS_FILE
    reader = ScoreReader(metrics, key=task.key)
    last = Score(0, 0.0, math.nan)
    with _TrainingProcess(task) as process:
        while process.is_running():
            for score in reader.read_new():
                last = score
                # The last one is told with the outcome: a run that is done is not stopped.
                if score.progress < DONE:
                    tune.report(_to_report(score))
            time.sleep(POLL_SECONDS)
        code, said = process.read_end()
    if code == EXIT_REFUSED:
        _report_end(last, REFUSED, REFUSAL.split(said)[-1].strip())
        return
    if code < 0:
        raise RuntimeError(f"{task.trial_id} was ended by signal {-code}.")
    if code != 0:
        lines = said.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"{task.trial_id} ended with status {code}: {lines[-1]}")
    scores = ScoreReader(metrics, key=task.key).read_new()
    if not scores:
        _report_end(last, REFUSED, f"no score: {METRICS_FILE} has no {task.key.removeprefix('-')}")
        return
    # What came late is told before the end, and can't stop what is done.
    for score in reader.read_new() or scores[-1:]:
        _report_end(score, FINISHED, "")


class _TrainingProcess:
    """A trial's training; it ends with this process, and when this context ends.

    The training reads its standard input for nothing but its end: a pipe is closed even for a
    process that is killed.
    """

    def __init__(self, task: TrialTask) -> None:
        self._log = Path(task.log)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._start = log.tell()
            self._process = subprocess.Popen(
                task.command,
                cwd=task.working_folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_build_environment(),
                start_new_session=True,
            )

    def __enter__(self) -> "_TrainingProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def read_end(self) -> tuple[int, str]:
        """Its exit status and the end of what it said."""
        with self._log.open("rb") as log:
            log.seek(max(self._start, self._log.stat().st_size - MAX_REASON))
            return self._process.wait(), log.read().decode("utf-8", errors="replace")


def _build_environment() -> dict[str, str]:
    """This process' environment, made into one of a driver on the same Ray."""
    context = ray.get_runtime_context()
    environment = {name: text for name, text in os.environ.items() if name not in _RAYS_OWN}
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        del environment["CUDA_VISIBLE_DEVICES"]  # Ray's, because Tune's process holds no GPU
    environment["RAY_ADDRESS"] = context.gcs_address
    runtime = dict(context.runtime_env)
    if runtime:
        # Where `ray job submit` put the code, for this job's workers, too.
        environment["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": runtime})
    return environment


def _to_report(score: Score) -> dict[str, Any]:
    return {SCORE: score.value, PROGRESS: score.progress, STEP: score.step}


def _report_end(score: Score, outcome: str, reason: str) -> None:
    tune.report({**_to_report(score), OUTCOME: outcome, REASON: reason[-MAX_REASON:]})
