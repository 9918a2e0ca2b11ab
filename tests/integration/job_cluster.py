"""A cluster that asks for a token, and `ray job` against it as a user has it in a shell.

The token lies in a file of the cluster's own; nobody's ~/.ray is looked at.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tiny
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from several_nodes import HEAD, Node, SeveralNodes, several_nodes

from lssl_ray.tracking.journal import read_rows

ROOT = Path(__file__).resolve().parents[2]
# What `ray job submit --working-dir .` sends of the repository, and a job needs.
PACKAGE = ("lssl_ray", "jobs", "tune_spaces", ".gitignore", ".rayignore")
WAIT_SECONDS = 600
LEAVE_SECONDS = 120
CALL_SECONDS = 60
# Of a run, wherever it is; and of a sweep's trials.
WORK = ("jobs/train.py", "RayTrainWorker", "TrainController", "RunDesk", "SplitCoordinator")
DECODERS = ("decode_child", "MapWorker")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
WHERE = """
import ray

import lssl_ray

ray.init("auto", log_to_driver=False, logging_level="ERROR")
find = ray.remote(lambda: __import__("lssl_ray").__file__)
print("driver", lssl_ray.__file__)
print("worker", ray.get(find.remote()))
"""


def write_token(folder: Path) -> Path:
    """A token as `ray get-auth-token --generate` makes one, for its owner alone."""
    path = folder / "auth_token"
    path.touch(mode=0o600)
    path.write_text(os.urandom(24).hex())
    return path


def build_environment(token: Path) -> dict[str, str]:
    """What docs/cluster.md has exported in every shell; a job's `python` is this one."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        # Ray kills its workers where other processes of the machine have taken the memory.
        "RAY_memory_monitor_refresh_ms": "0",
    }


def copy_repository(folder: Path) -> Path:
    """A checkout, that nobody changes while it is sent."""
    for name in PACKAGE:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


class JobClient:
    """Submits, watches and stops jobs.

    Args:
        url: Of the cluster's dashboard.
        token: File of the cluster's token.
        repository: Sent with every job.
        env: Of the shell.
    """

    def __init__(self, url: str, *, token: Path, repository: Path, env: Mapping[str, str]) -> None:
        self.url = url
        self.secret = token.read_text()
        self._repository = repository
        kept = {name: text for name, text in env.items() if name != "RAY_ADDRESS"}
        self._env = kept | {"RAY_API_SERVER_ADDRESS": url}

    def write_code(self, name: str, text: str) -> None:
        """Change or add a file of the repository, for the jobs from now on."""
        (self._repository / name).write_text(text)

    def submit(self, name: str, *entrypoint: str) -> None:
        """Start a job, and come back at once."""
        target = ["--submission-id", name, "--working-dir", ".", "--no-wait", "--", "python"]
        done = self.call("submit", *target, *entrypoint)
        assert done.returncode == 0, done.stdout

    def run(self, name: str, *entrypoint: str) -> str:
        """Start a job and wait for its success; what it said."""
        self.submit(name, *entrypoint)
        assert self.wait(name) == "SUCCEEDED", self.read_logs(name)
        return self.read_logs(name)

    def stop(self, name: str) -> str:
        """What `ray job stop` asks for, at once; the status that the job ended with."""
        assert self.find_status(f"/api/jobs/{name}/stop", token=self.secret, data=b"") == 200
        return self.wait(name)

    def read_logs(self, name: str) -> str:
        """`ray job logs`, without what Ray's command says of itself."""
        return str(self.get(f"/api/jobs/{name}/logs")["logs"])

    def wait(self, name: str) -> str:
        """The status that a job ends with."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (status := self.describe(name)["status"]) not in ENDED:
            assert time.monotonic() < deadline, self.read_logs(name)
            time.sleep(0.5)
        return str(status)

    def wait_until(self, condition: Callable[[], bool], *, name: str) -> None:
        """Poll until something is so; a job that ends before fails the test."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.describe(name)["status"] not in ENDED, self.read_logs(name)
            assert time.monotonic() < deadline, self.read_logs(name)
            time.sleep(0.05)

    def describe(self, name: str) -> dict[str, Any]:
        """What the dashboard shows of a job."""
        return self.get(f"/api/jobs/{name}")

    def get(self, path: str) -> dict[str, Any]:
        """An answer of the dashboard, as JSON."""
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.secret}"}
        )
        with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
            return dict(json.load(answer))

    def find_status(self, path: str, *, token: str | None, data: bytes | None = None) -> int:
        """The HTTP status that somebody with such a token gets."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def call(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`ray job ...` in the repository's folder."""
        return subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "job", *arguments],
            cwd=self._repository,
            env=self._env | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )


@dataclass(frozen=True)
class Jobs:
    """A cluster, a client of it, and storage that all of its nodes see."""

    cluster: SeveralNodes
    client: JobClient
    shared: Path

    @property
    def recipe(self) -> str:
        return str(self.shared / "recipe.yaml")

    def find_left(self, *words: str) -> list[str]:
        """Command lines of the cluster's processes, orphans too, that hold one of the words."""
        known = {*self.cluster.list_processes(HEAD), *self.cluster.list_processes("work")}
        token = self.cluster.env["RAY_AUTH_TOKEN_PATH"]
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                # An orphan has no more of its cluster than its environment.
                if any(word in line for word in words) and (
                    process in known or process.environ().get("RAY_AUTH_TOKEN_PATH") == token
                ):
                    found.append(line)
            except psutil.Error:
                continue
        return found

    def wait_for_none(self, *words: str) -> list[str]:
        """What is left of such processes when they have had their time."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while (left := self.find_left(*words)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def find_runs(self, filter_string: str = "") -> list[Run]:
        client = MlflowClient(f"sqlite:///{self.shared / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("lssl_ray")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], filter_string))


def has_rows(folder: Path, count: int) -> Callable[[], bool]:
    return lambda: len(list(read_rows(folder / "metrics.jsonl"))) >= count


def check_readable(text: str) -> None:
    """No colours, no cursor movements, and lines of a person's size."""
    assert "\x1b" not in text and "\r" not in text
    assert max(len(line) for line in text.splitlines()) < 400
    assert "Traceback" not in text


@contextmanager
def open_jobs(
    folder: Path,
    clip: Path,
    videos: tiny.VideoSet,
    *,
    num_steps: int,
    secrets: Mapping[str, str] | None = None,
) -> Iterator[Jobs]:
    """A head without cores and a node of six, `recipe.yaml` and an MLflow store in shared storage.

    Args:
        folder: Of its own.
        clip: The recipe's CLIP.
        videos: The recipe's videos.
        num_steps: Of the recipe.
        secrets: Further variables of the cluster's environment.
    """
    shared, repository = folder / "shared", folder / "repository"
    shared.mkdir()
    repository.mkdir()
    values = tiny.build_recipe_values(clip, videos, run_folder=shared / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": 5}
    values["optim"] |= {"epochs": 1000, "max_steps": num_steps}
    values["tracking"] = {"uri": f"sqlite:///{shared / 'mlflow.db'}"}
    (shared / "recipe.yaml").write_text(yaml.safe_dump(values))
    token = write_token(folder)
    # As on the clusters of cluster.yaml: a stopped job closes its MLflow run first.
    stopping = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
    environment = {**build_environment(token), **(secrets or {}), **stopping}
    nodes = {"work": Node(num_cpus=6)}
    with several_nodes(nodes, dashboard=True, environment=environment) as cluster:
        assert cluster.dashboard_url is not None
        client = JobClient(
            cluster.dashboard_url,
            token=token,
            repository=copy_repository(repository),
            env=cluster.env,
        )
        yield Jobs(cluster, client, shared)


def lay_out_code(jobs: Jobs, name: str) -> str:
    """A job that has both nodes unpack the code, and tells where.

    Raylets of one machine share the folder, and the second one lays it anew: a job that runs there
    loses its current one, which a sweep's Tune does not take.
    """
    jobs.client.write_code("jobs/where.py", WHERE)
    return jobs.client.run(name, "jobs/where.py")
