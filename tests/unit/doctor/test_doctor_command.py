"""`lssl-ray doctor --local` as a user starts it: good recipes pass, broken ones say what is so."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lssl_ray.cli import app
from lssl_ray.diagnosing.inputs import measure_checkpoint
from lssl_ray.doctor.gpus import has_gpu_device
from lssl_ray.model.clip import ClipModel
from lssl_ray.training.checkpoint import list_checkpoints

EXIT_PROBLEM, EXIT_REFUSED = 1, 2
Findings = dict[str, dict[str, Any]]
# What depends on the machine that tests run on.
MACHINE = {"versions", "open files", "temporary files", "gpus", "cores", "memory"}


def run_doctor(tmp_path: Path, *arguments: object) -> tuple[int, Findings, str]:
    out = tmp_path / "doctor.json"
    command = ["doctor", "--local", "--json", out, *arguments]
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [str(item) for item in command], env=environment)
    assert "Traceback" not in result.output, result.output
    plain = json.loads(out.read_text()) if out.exists() else {"findings": []}
    out.unlink(missing_ok=True)
    findings = {finding["name"]: finding for finding in plain["findings"]}
    assert len(findings) == len(plain["findings"])
    return result.exit_code, findings, result.output


def list_problems(findings: Findings) -> set[str]:
    return {name for name, one in findings.items() if one["status"] == "problem"}


def list_files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_doctor_good_recipe_has_no_problem_and_leaves_nothing(
    recipe_file: Path, tmp_path: Path
) -> None:
    before = list_files(tmp_path)
    code, findings, output = run_doctor(tmp_path, "--config", recipe_file)
    assert (code, list_problems(findings)) == (0, set())
    assert list_files(tmp_path) == before
    for name in (
        "configuration", "clip", "concepts", "manifest", "evaluation", "run folder", "free space",
        "tracking", "decoding",
    ):  # fmt: skip
        assert findings[name]["status"] == "ok", findings[name]
        assert name in output
    assert findings["ray"]["status"] == "skipped"
    assert "8 videos: 8 to train on" in findings["manifest"]["found"]


@pytest.mark.parametrize(
    ("override", "name", "told"),
    [
        ("clip.model='local-dir:/nowhere'", "clip", "/nowhere"),
        ("concepts.labels=nowhere.yaml", "concepts", "nowhere.yaml"),
        ("data.manifest=nowhere.parquet", "manifest", "nowhere.parquet"),
        ("data.hold_back=8", "manifest", "data.hold_back=8"),
        ("evaluation.manifests={test: nowhere.parquet}", "evaluation", "nowhere.parquet"),
        ("run.folder=/proc/none", "run folder", "/proc/none"),
        ("run.checkpoints_to_keep=1000000000", "free space", "1000000000 checkpoints"),
        ("run.storage='file:///proc/none'", "run.storage", "/proc/none"),
        ("tracking.uri='sqlite:////proc/none/m.db'", "tracking", "/proc"),
    ],
)
def test_doctor_one_broken_thing_is_the_one_problem(
    recipe_file: Path, tmp_path: Path, override: str, name: str, told: str
) -> None:
    code, findings, _ = run_doctor(tmp_path, "--config", recipe_file, "--set", override)
    assert (code, list_problems(findings)) == (EXIT_PROBLEM, {name})
    assert told in findings[name]["found"]
    # The machine is looked at all the same.
    assert findings.keys() >= MACHINE - {"memory"}


def test_doctor_tracking_server_that_is_away_is_a_problem(
    recipe_file: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, findings, _ = run_doctor(
        tmp_path, "--config", recipe_file, "--set", f"tracking.uri='{uri}'"
    )
    assert (code, list_problems(findings)) == (EXIT_PROBLEM, {"tracking"})
    assert uri in findings["tracking"]["found"]


def test_doctor_tracking_store_that_is_new_is_not_made(recipe_file: Path, tmp_path: Path) -> None:
    new = tmp_path / "mlflow" / "mlflow.db"
    code, findings, _ = run_doctor(
        tmp_path, "--config", recipe_file, "--set", f"tracking.uri='sqlite:///{new}'"
    )
    assert (code, findings["tracking"]["status"]) == (0, "ok")
    assert not new.parent.exists()


@pytest.mark.skipif(has_gpu_device(), reason="this machine has a GPU")
def test_doctor_gpus_that_are_not_there_are_a_problem(recipe_file: Path, tmp_path: Path) -> None:
    overrides = ("--set", "cluster.use_gpu=true", "--set", "clip.precision=bf16")
    code, findings, _ = run_doctor(tmp_path, "--config", recipe_file, *overrides)
    assert (code, list_problems(findings)) == (EXIT_PROBLEM, {"gpus"})
    assert findings["bf16"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"optim": {"epoch": 3}}, "did you mean epochs?"), ({"run": "fast"}, "run")],
)
def test_doctor_recipe_that_is_none_is_a_problem_and_the_machine_is_looked_at(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    code, findings, _ = run_doctor(tmp_path, "--config", recipe)
    assert (code, list_problems(findings)) == (EXIT_PROBLEM, {"configuration"})
    assert told in findings["configuration"]["found"]
    assert findings["versions"]["status"] == "ok"


def test_doctor_without_recipe_looks_at_the_machine_alone(tmp_path: Path) -> None:
    code, findings, _ = run_doctor(tmp_path)
    assert code == 0
    assert findings.keys() == {"inputs", "ray", "versions", "open files", "temporary files", "gpus"}
    assert findings["inputs"]["status"] == "skipped"


def test_doctor_json_that_can_t_be_written_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--local", "--json", "/proc/none/doctor.json"])
    assert result.exit_code == EXIT_REFUSED
    assert "/proc/none/doctor.json" in result.stderr


def test_checkpoint_estimate_is_what_a_checkpoint_takes(
    trained_run: Path, tiny_clip: ClipModel, build_config: Any
) -> None:
    checkpoint = list_checkpoints(trained_run)[-1]
    written = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    estimate = measure_checkpoint(build_config(), tiny_clip)
    # Names and step counts weigh something in a model of 100 thousand weights.
    assert 0.9 * written < estimate <= written
