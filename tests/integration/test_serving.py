"""The exported model behind `mlflow models serve`, asked over HTTP on loopback."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from mlflow import MlflowClient
from typer.testing import CliRunner

from lssl_ray.cli import app
from lssl_ray.inference import load_model

pytestmark = pytest.mark.timeout(300)
START_SECONDS = 200


def find_free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@contextmanager
def serving(model_uri: str, store: str, folder: Path) -> Iterator[str]:
    """`mlflow models serve` in a process group of its own; gives its address."""
    port = find_free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", model_uri),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    output = folder / "serve.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address, process, output)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_up(address: str, process: "subprocess.Popen[bytes]", output: Path) -> None:
    for _ in range(START_SECONDS * 5):
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5) as reply:
                assert reply.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            break
    pytest.fail(f"the server did not start: {output.read_text()}")


def ask(address: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        predictions: list[dict[str, Any]] = json.loads(reply.read())["predictions"]
        return predictions


def test_registered_model_answers_over_http_like_classify(
    trained_run: Path, videos: tiny.VideoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts beside the working directory
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    out = tmp_path / "served"
    command = ["export", str(trained_run), "--format", "mlflow", "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--register", "tiny", "--tracking-uri", store])
    assert done.exit_code == 0, done.output
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt")]
    (version,) = MlflowClient(store, store).search_model_versions("name = 'tiny'")
    assert str(version.version) == "1"
    good, other = videos.paths[:2]
    content = base64.b64encode(other.read_bytes()).decode()
    missing = tmp_path / "nowhere.mp4"
    rows = [{"path": str(good)}, {"base64": content}, {"path": str(missing)}]
    labels = ["moving left", "darkening", "a cat"]
    with serving("models:/tiny/1", store, tmp_path) as address:
        answers = ask(
            address, {"dataframe_records": rows, "params": {"labels": labels, "top_k": 2}}
        )
        own = ask(address, {"inputs": {"path": [str(good)]}})
        for wrong in ({}, {"path": str(good), "base64": content}, {"base64": "no base64"}):
            with pytest.raises(urllib.error.HTTPError) as refusal:
                ask(address, {"dataframe_records": [wrong], "params": {"labels": labels}})
            assert refusal.value.code == 400
    expected = load_model(trained_run, device="cpu").classify([good, other], labels, top_k=2)
    for answer, prediction in zip(answers[:2], expected, strict=True):
        assert answer["labels"] == list(prediction.labels)
        assert answer["scores"] == pytest.approx(prediction.scores, abs=1e-6)
        assert answer["reason"] is None
    assert answers[2]["reason"] == "missing" and answers[2]["labels"] == []
    assert set(own[0]["labels"]) == set(tiny.ACTIONS)
