"""Every entry point as a job of a cluster of two nodes that asks for a token: sent, run, stopped.

The head has no cores, as docs/cluster.md has it: drivers run there, all work on the other node.
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from job_cluster import (
    DECODERS,
    WORK,
    Jobs,
    check_readable,
    has_rows,
    lay_out_code,
    open_jobs,
)

from lssl_ray.concepts.space import load_concept_space
from lssl_ray.embedding_files import list_parts
from lssl_ray.model.clip import load_clip
from lssl_ray.tracking.journal import read_rows
from lssl_ray.training.checkpoint import find_damage, list_checkpoints

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1500)]

NUM_STEPS = 80
PASSWORD = "open-sesame-9371"


@pytest.fixture(scope="module")
def jobs(
    tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> Iterator[Jobs]:
    secrets = {"MLFLOW_TRACKING_USERNAME": "ali", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    folder = tmp_path_factory.mktemp("cluster")
    with open_jobs(folder, tiny_clip_dir, videos, num_steps=NUM_STEPS, secrets=secrets) as opened:
        yield opened


@dataclass(frozen=True)
class Stopped:
    """A training that was stopped as a job, and what was so right after."""

    name: str
    folder: Path
    status: str
    tracked: str
    run_id: str
    num_rows: int
    damage: dict[str, str | None]
    left: list[str]


@pytest.fixture(scope="module")
def stopped(jobs: Jobs) -> Stopped:
    folder = jobs.shared / "runs" / "mine"
    jobs.client.submit(
        "train",
        *("jobs/train.py", "--config", jobs.recipe, "--run-name", "mine"),
        *("--set", "cluster.address=auto"),
    )
    jobs.client.wait_until(has_rows(folder, 12), name="train")
    status = jobs.client.stop("train")
    left = jobs.wait_for_none(*WORK, *DECODERS)
    (run,) = jobs.find_runs("tags.`lssl.run` = 'mine'")
    return Stopped(
        name="train",
        folder=folder,
        status=status,
        tracked=run.info.status,
        run_id=run.info.run_id,
        num_rows=len(list(read_rows(folder / "metrics.jsonl"))),
        damage={path.name: find_damage(path) for path in list_checkpoints(folder)},
        left=left,
    )


@pytest.fixture(scope="module")
def trained(jobs: Jobs, stopped: Stopped) -> Stopped:
    """The same run, gone on with by a second job to its end."""
    jobs.client.run(
        "train-again",
        *("jobs/train.py", "--resume", str(stopped.folder)),
    )
    return stopped


def test_dashboard_asks_for_the_token(jobs: Jobs) -> None:
    body = json.dumps({"entrypoint": "true"}).encode()
    for token, status in ((None, 401), ("guessed", 403)):
        assert jobs.client.find_status("/api/jobs/", token=token) == status
        assert jobs.client.find_status("/api/jobs/", token=token, data=body) == status
    assert jobs.client.find_status("/api/jobs/", token=jobs.client.secret) == 200


def test_submit_without_the_token_is_refused(jobs: Jobs, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("guessed")
    done = jobs.client.call("list", RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode != 0
    assert "oken" in done.stdout


def test_job_runs_its_own_copy_of_the_code_on_every_node(jobs: Jobs) -> None:
    text = lay_out_code(jobs, "where")
    places = dict(line.split() for line in text.splitlines() if line.startswith(("dri", "wor")))
    assert set(places) == {"driver", "worker"}
    assert all("working_dir_files" in place for place in places.values()), places


def test_training_into_the_jobs_own_copy_is_refused(jobs: Jobs) -> None:
    jobs.client.submit(
        "passing",
        *("jobs/train.py", "--config", jobs.recipe, "--run-name", "passing"),
        *("--set", "cluster.address=auto", "--set", "run.folder=runs"),
    )
    assert jobs.client.wait("passing") == "FAILED"
    text = jobs.client.read_logs("passing")
    check_readable(text)
    assert "run.folder=" in text and "--set run.folder=/" in text


def test_build_concepts_as_a_job_writes_a_space(
    jobs: Jobs, tiny_clip_dir: Path, videos: tiny.VideoSet
) -> None:
    out = jobs.shared / "space.safetensors"
    clip = f"local-dir:{tiny_clip_dir}"
    text = jobs.client.run(
        "concepts",
        *("jobs/build_concepts.py", "--labels", str(videos.labels), "--clip", clip),
        *("--no-cache", "--out", str(out)),
    )
    check_readable(text)
    digest = load_clip(clip, weights=None).digest
    assert set(load_concept_space(out, clip_digest=digest).labels) == set(tiny.ACTIONS)


def test_check_data_as_a_job_probes_on_the_cluster(jobs: Jobs, videos: tiny.VideoSet) -> None:
    text = jobs.client.run(
        "check", "jobs/check_data.py", str(videos.manifest), "--decode", "--engine", "ray"
    )
    check_readable(text)
    assert "8" in text


def test_stopped_training_ends_at_once_and_says_so(stopped: Stopped) -> None:
    assert stopped.status == "STOPPED"
    assert stopped.num_rows < NUM_STEPS, "it was stopped too late to prove anything"
    assert stopped.tracked == "KILLED"


def test_stopped_training_leaves_no_process(stopped: Stopped) -> None:
    assert stopped.left == []


def test_stopped_training_leaves_whole_checkpoints(stopped: Stopped) -> None:
    assert stopped.damage
    assert set(stopped.damage.values()) == {None}


def test_resumed_training_finishes_in_the_same_tracked_run(jobs: Jobs, trained: Stopped) -> None:
    summary = json.loads((trained.folder / "summary.json").read_text())
    assert summary["finished"] and summary["steps"] == NUM_STEPS
    steps = [row["step"] for row in read_rows(trained.folder / "metrics.jsonl")]
    assert steps == list(range(1, NUM_STEPS + 1))
    (run,) = jobs.find_runs("tags.`lssl.run` = 'mine'")
    assert (run.info.run_id, run.info.status) == (trained.run_id, "FINISHED")


def test_logs_of_a_training_are_readable_and_show_its_progress(
    jobs: Jobs, trained: Stopped
) -> None:
    text = jobs.client.read_logs("train-again")
    check_readable(text)
    assert f"{NUM_STEPS}/{NUM_STEPS}" in text and "ETA" in text
    shown = jobs.client.call("logs", "train-again")
    assert f"{NUM_STEPS}/{NUM_STEPS}" in shown.stdout, shown.stdout


def test_evaluate_as_a_job_writes_a_report(
    jobs: Jobs, trained: Stopped, videos: tiny.VideoSet
) -> None:
    text = jobs.client.run(
        "evaluate",
        *("jobs/evaluate.py", str(trained.folder), str(videos.manifest)),
        *("--set", "cluster.address=auto"),
    )
    check_readable(text)
    report = json.loads((trained.folder / "evaluation" / "evaluation" / "report.json").read_text())
    assert len(report["videos"]) == 8


def test_embed_as_a_job_writes_a_row_per_video(
    jobs: Jobs, trained: Stopped, videos: tiny.VideoSet
) -> None:
    out = jobs.shared / "embeddings"
    text = jobs.client.run(
        "embed",
        *("jobs/embed.py", str(videos.manifest), "--model", str(trained.folder)),
        *("--out", str(out), "--set", "cluster.address=auto"),
    )
    check_readable(text)
    assert "8 of 8" in text
    assert list_parts(out)


def test_secrets_of_the_environment_are_nowhere_in_what_is_filed_or_shown(
    jobs: Jobs, trained: Stopped
) -> None:
    secrets = (PASSWORD, jobs.client.secret)
    shown = json.dumps(jobs.client.get("/api/jobs/train-again"))
    shown += jobs.client.read_logs("train") + jobs.client.read_logs("train-again")
    assert not any(secret in shown for secret in secrets)
    with sqlite3.connect(jobs.shared / "mlflow.db") as database:
        stored = "\n".join(database.iterdump())
    assert "lssl.run" in stored and not any(secret in stored for secret in secrets)
    for path in (path for path in jobs.shared.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), path
