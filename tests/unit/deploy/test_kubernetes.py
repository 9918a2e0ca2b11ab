"""KubeRay manifests and the image recipe: the operator's own schema, closed, and our promises.

`kuberay_rayjob_v1.7.0.json.gz` is a copy of KubeRay's schema; its `$comment` names source and
licence. A cluster that ran them has not been seen.
"""

import gzip
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml
from click import Option
from jsonschema import Draft202012Validator, ValidationError
from ray.scripts.scripts import start

from lssl_ray.cli import train
from lssl_ray.cluster.preemption import app as preemption_app
from lssl_ray.config import load_config

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = Path(__file__).with_name("kuberay_rayjob_v1.7.0.json.gz")


def close_schema(node: Any) -> Any:
    """As Kubernetes reads it, but a field that it would drop without a word is refused."""
    if isinstance(node, list):
        return [close_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: close_schema(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        closed["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
    return closed


def load_manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / name).read_text()))


@pytest.fixture(scope="module")
def job_schema() -> dict[str, Any]:
    return dict(close_schema(json.loads(gzip.decompress(SCHEMA.read_bytes()))))


@pytest.fixture(scope="module")
def cluster_spec() -> dict[str, Any]:
    return dict(load_manifest("raycluster.yaml")["spec"])


def list_pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def list_options(function: Any, *path: str) -> set[str]:
    command = typer.main.get_command(function)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {spelling for option in command.params for spelling in option.opts}


def test_job_fits_the_schema_of_kuberay(job_schema: dict[str, Any]) -> None:
    Draft202012Validator(job_schema).validate(load_manifest("rayjob.yaml"))


def test_cluster_fits_the_schema_of_kuberay(
    job_schema: dict[str, Any], cluster_spec: dict[str, Any]
) -> None:
    schema = job_schema["properties"]["spec"]["properties"]["rayClusterSpec"]
    Draft202012Validator(schema).validate(cluster_spec)


@pytest.mark.parametrize("place", ["spec", "group", "container"])
def test_misspelt_field_is_refused_by_the_same_check(
    job_schema: dict[str, Any], place: str
) -> None:
    manifest = load_manifest("rayjob.yaml")
    group = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    container = group["template"]["spec"]["containers"][0]
    {"spec": manifest["spec"], "group": group, "container": container}[place]["labls"] = {}
    with pytest.raises(ValidationError, match="labls"):
        Draft202012Validator(job_schema).validate(manifest)


def test_job_runs_on_the_same_cluster(cluster_spec: dict[str, Any]) -> None:
    assert load_manifest("rayjob.yaml")["spec"]["rayClusterSpec"] == cluster_spec


def test_entrypoint_is_a_command_of_ours_with_settings_that_exist() -> None:
    words = shlex.split(load_manifest("rayjob.yaml")["spec"]["entrypoint"])
    assert words[0] == "python"
    script = Path(words[1])
    assert script.parent == Path("/app/jobs")
    assert (ROOT / "jobs" / script.name).is_file()
    one_command = typer.Typer()
    one_command.command()(train)
    options = {word for word in words if word.startswith("--")}
    assert options <= list_options(one_command)
    overrides = [after for word, after in pairwise(words) if word == "--set"]
    needed = ["data.manifest=m", "concepts.labels=l", "clip.model='local-dir:c'"]
    config = load_config(None, [*needed, *overrides])
    assert config.cluster.address == "auto"
    # The image's own folder can't be written, and is gone with the pod.
    assert Path(config.run.folder).parts[:2] == ("/", "shared")
    assert config.tracking.uri is None or config.tracking.uri.startswith("http")
    groups = load_manifest("raycluster.yaml")["spec"]["workerGroupSpecs"]
    labels = [group["labels"] for group in groups]
    assert [config.cluster.train_labels, config.cluster.decode_labels] == labels


def test_cluster_asks_for_a_token_of_a_secret(cluster_spec: dict[str, Any]) -> None:
    assert cluster_spec["authOptions"]["mode"] == "token"
    assert cluster_spec["authOptions"]["secretName"]
    assert all(
        not re.search("TOKEN|PASSWORD|SECRET|KEY", variable["name"])
        for pod in list_pods(cluster_spec)
        for variable in pod["containers"][0]["env"]
    )


def test_head_takes_no_work_and_stays_inside(cluster_spec: dict[str, Any]) -> None:
    head = cluster_spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head.get("serviceType", "ClusterIP") == "ClusterIP"
    assert not head.get("enableIngress", False)


def test_ray_start_is_given_only_parameters_that_it_has(cluster_spec: dict[str, Any]) -> None:
    known = {name for option in start.params if isinstance(option, Option) for name in option.opts}
    for group in [cluster_spec["headGroupSpec"], *cluster_spec["workerGroupSpecs"]]:
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_manifest_names_the_pinned_ray(cluster_spec: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster_spec["rayVersion"] == pinned[1] == ray.__version__


def test_workers_drain_within_their_grace_period(cluster_spec: dict[str, Any]) -> None:
    for group in cluster_spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        container = pod["containers"][0]
        words = container["lifecycle"]["preStop"]["exec"]["command"]
        assert words[:4] == ["python", "-m", "lssl_ray.cluster.preemption", "drain"]
        assert set(words[4::2]) <= list_options(preemption_app, "drain")
        waits = {variable["name"]: variable["value"] for variable in container["env"]}
        drain_seconds = float(waits["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert max(drain_seconds, float(words[-1])) < pod["terminationGracePeriodSeconds"]


def test_pods_run_without_privileges_and_are_probed(cluster_spec: dict[str, Any]) -> None:
    for pod in list_pods(cluster_spec):
        assert pod["securityContext"]["runAsNonRoot"] is True
        container = pod["containers"][0]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        for probe in (container["readinessProbe"], container["livenessProbe"]):
            assert probe["httpGet"] == {"path": "/api/healthz", "port": 52365}
    workers = list_pods(cluster_spec)[1:]
    assert not any(pod["automountServiceAccountToken"] for pod in workers)


def test_image_is_pinned_unprivileged_and_made_of_files_that_exist() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+", base) for base in bases)
    assert any("-c constraints.txt" in line for line in lines if "pip install" in line)
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 1000:1000"
    copied = {
        word.removeprefix("./")
        for line in lines
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    }
    assert copied and all((ROOT / name).exists() for name in copied)
    ignoring = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in ignoring if line.startswith("!")} == copied
