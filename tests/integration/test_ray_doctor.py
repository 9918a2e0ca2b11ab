"""`lssl-ray doctor` on a Ray of its own and on one of several nodes, one of which is different."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from several_nodes import Node, SeveralNodes, several_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EXIT_PROBLEM = 1
COMMAND_SECONDS = 600
# A machine under full load takes its time to start a worker on each node.
ANSWER_SECONDS, SHORT_SECONDS = 240, 15
FEW_FILES = 3000
Findings = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeveralNodes]:
    """A node that trains and one that decodes; the latter has another numpy and fewer files."""
    shadow = tmp_path_factory.mktemp("shadow")
    (shadow / "numpy-0.0.1.dist-info").mkdir()
    (shadow / "numpy-0.0.1.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 0.0.1\n")
    nodes = {
        "train": Node(num_cpus=2, labels={"pool": "train"}),
        "decode": Node(
            num_cpus=1,
            labels={"pool": "decode"},
            environment={"PYTHONPATH": str(shadow)},
            wrapper=("bash", "-c", f'ulimit -n {FEW_FILES}; exec "$0" "$@"'),
        ),
    }
    # A node that stands still is to be alive to Ray for as long as a test takes.
    patient = {"RAY_health_check_failure_threshold": "1000"}
    with several_nodes(nodes, environment=patient) as started:
        yield started


def run_doctor(
    tmp_path: Path, *arguments: object, environment: dict[str, str], seconds: float = ANSWER_SECONDS
) -> tuple[int, Findings]:
    out = tmp_path / "doctor.json"
    command = ["doctor", "--json", out, "--deadline", seconds, *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "lssl_ray.cli", *(str(item) for item in command)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    assert out.exists(), done.stdout + done.stderr
    findings = json.loads(out.read_text())["findings"]
    return done.returncode, {finding["name"]: finding for finding in findings}


def list_statuses(findings: Findings) -> dict[str, str]:
    return {name: finding["status"] for name, finding in findings.items()}


JOIN = (
    "--set", "cluster.address=auto", "--set", "cluster.decode_memory_mib=1024",
    "--set", "cluster.train_labels={pool: train}", "--set", "cluster.decode_labels={pool: decode}",
)  # fmt: skip


@pytest.mark.long
def test_doctor_of_several_nodes_names_the_one_that_differs(
    cluster: SeveralNodes, recipe_file: Path, tmp_path: Path
) -> None:
    code, findings = run_doctor(tmp_path, "--config", recipe_file, *JOIN, environment=cluster.env)
    statuses = list_statuses(findings)
    assert code == 0, findings
    for name in (
        "ray", "nodes", "code", "clocks", "labels", "room", "shared files", "run folder on nodes",
        "weights on nodes", "dashboard", "decoding",
    ):  # fmt: skip
        assert statuses[name] == "ok", findings[name]
    assert "3 answered" in findings["nodes"]["found"]
    trains, decodes = (cluster.node_id(name)[:8] for name in ("train", "decode"))
    versions, files = findings["versions"], findings["open files"]
    assert (versions["status"], files["status"]) == ("warning", "warning")
    assert f"({decodes}) has numpy 0.0.1" in versions["found"]
    assert f"({decodes}): {FEW_FILES}" in files["found"]
    assert trains not in versions["found"] + files["found"]
    # Clips are decoded where the run would, and these nodes ask nobody for a token.
    assert decodes in findings["decoding"]["found"]
    assert statuses["token"] == "warning"
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_doctor_silent_node_label_of_no_node_and_too_many_workers_are_problems(
    cluster: SeveralNodes, recipe_file: Path, tmp_path: Path
) -> None:
    changes = ("--set", "cluster.train_labels={pool: typo}", "--set", "cluster.num_workers=4")
    processes = cluster.list_processes("train")
    for process in processes:
        process.suspend()
    try:
        code, findings = run_doctor(
            tmp_path,
            "--config",
            recipe_file,
            *JOIN,
            *changes,
            environment=cluster.env,
            seconds=SHORT_SECONDS,
        )
    finally:
        for process in processes:
            process.resume()
    assert code == EXIT_PROBLEM
    problems = {name for name, status in list_statuses(findings).items() if status == "problem"}
    assert problems >= {"nodes", "labels", "room"}
    assert f"({cluster.node_id('train')[:8]}): nothing within" in findings["nodes"]["found"]
    assert "pool=train" in findings["labels"]["found"]


def test_doctor_on_a_ray_of_its_own_finds_no_problem(recipe_file: Path, tmp_path: Path) -> None:
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("RAY_")
    } | {"RAY_USAGE_STATS_ENABLED": "0"}
    code, findings = run_doctor(tmp_path, "--config", recipe_file, environment=environment)
    statuses = list_statuses(findings)
    assert code == 0, findings
    for name in ("ray", "nodes", "versions", "code", "clocks", "token", "dashboard", "decoding"):
        assert statuses[name] == "ok", findings[name]
