"""A sweep as a job: stopped with all of its trials, and gone on with by another job."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from job_cluster import DECODERS, WORK, Jobs, has_rows, lay_out_code, open_jobs
from mlflow.entities import Run

from lssl_ray.tracking.journal import read_rows

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1500)]

TRIAL_STEPS = 40
SPACE = '''"""How sharp should the student be?"""

from ray import tune


def build_space():
    return {"objective.student_temperature": tune.choice([0.1, 0.2])}
'''


@pytest.fixture(scope="module")
def jobs(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("cluster")
    with open_jobs(folder, tiny_clip_dir, videos, num_steps=TRIAL_STEPS) as opened:
        (opened.shared / "sharpness.py").write_text(SPACE)
        yield opened


def test_sweep_as_a_job_is_stopped_with_its_trials_and_goes_on(jobs: Jobs) -> None:
    folder = jobs.shared / "runs" / "sharpness"
    trials = folder / "trials"
    lay_out_code(jobs, "before-sweep")
    jobs.client.submit(
        "sweep",
        *("jobs/sweep.py", "--space", str(jobs.shared / "sharpness.py"), "--name", "sharpness"),
        *("--config", jobs.recipe, "--search", "grid", "--scheduler", "none"),
        *("--select", "zero_shot:test", "--set", "cluster.address=auto"),
        *("--set", f"optim.max_steps={TRIAL_STEPS}", "--set", "run.checkpoint_every=10"),
    )
    jobs.client.wait_until(
        lambda: any(has_rows(path, 5)() for path in trials.glob("*")), name="sweep"
    )
    assert jobs.client.stop("sweep") == "STOPPED"
    assert jobs.wait_for_none("trial_run", "jobs/sweep.py", *WORK, *DECODERS) == []
    runs = jobs.find_runs("tags.`lssl.sweep` = 'sharpness'")
    ends = {run.info.run_name: run.info.status for run in [*runs, *find_parents(jobs)]}
    assert ends["sharpness"] == "KILLED"
    assert set(ends.values()) <= {"KILLED", "FINISHED"}, ends

    mark = "the code of the second job"
    jobs.client.write_code("lssl_ray/sweeping/__init__.py", f'print("{mark}", flush=True)\n')
    lay_out_code(jobs, "before-sweep-again")
    jobs.client.run("sweep-again", "jobs/sweep.py", "--resume", str(folder))
    logs = [path.read_text() for path in (folder / "logs" / "trials").glob("*.log")]
    assert any(mark in text for text in logs), "trials ran the code of the first job"
    ending = json.loads((folder / "sweep.json").read_text())
    assert ending["best"]["score"] is not None
    for path in trials.glob("*/metrics.jsonl"):
        steps = [row["step"] for row in read_rows(path) if "loss/total" in row]
        assert steps == list(range(1, TRIAL_STEPS + 1)), path
    assert {run.info.status for run in find_parents(jobs)} == {"FINISHED"}


def find_parents(jobs: Jobs) -> list[Run]:
    return jobs.find_runs("tags.`lssl.kind` = 'sweep'")
