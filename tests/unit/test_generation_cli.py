"""`lssl-ray concepts generate` as a user starts it, against a server on loopback."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from chat_stub import (
    Body,
    Response,
    answer,
    build_entry,
    describe_all,
    list_labels,
    read_prompt,
    refuse,
    serve,
)
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.concepts.vocabulary import load_vocabulary

LABELS = [f"doing thing {number}" for number in range(6)]
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and no key of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    return tmp_path


def generate(url: str, *arguments: object) -> Result:
    fixed = ["concepts", "generate", "--base-url", url, "--model", "stub", "--max-retries", "0"]
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [*fixed, *map(str, arguments)], env=environment)


def load_output(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def list_missing(path: Path) -> list[str]:
    return [row["name"] for row in json.loads(path.read_text(encoding="utf-8"))]


def test_generate_labels_writes_a_vocabulary_that_loads(workplace: Path) -> None:
    with serve(describe_all) as stub:
        result = generate(stub.url, "--labels", "labels.txt", "--batch", 4, "--out", "new/v.yaml")
    assert result.exit_code == 0, result.output
    data = load_output(Path("new/v.yaml"))
    assert list(data["labels"]) == LABELS
    assert data["labels"][LABELS[0]].keys() == {"static", "dynamic"}
    provenance = data["provenance"]
    assert provenance["model"] == "stub"
    assert stub.url == f"http://{provenance['host']}/v1"
    assert provenance["source"] == {"labels": "labels.txt"}
    assert provenance["missing"] == 0
    assert provenance["counts"]["requests"] == 2
    assert str(workplace) not in Path("new/v.yaml").read_text()
    vocabulary = load_vocabulary(Path("new/v.yaml"))
    assert list(vocabulary.labels) == LABELS
    assert vocabulary.descriptions[2] == (
        *build_entry(LABELS[2])["static"],
        *build_entry(LABELS[2])["dynamic"],
    )
    assert {path.name for path in Path("new").iterdir()} == {"v.yaml", "v.cache"}


def test_generate_after_the_server_died_asks_only_for_what_is_missing(workplace: Path) -> None:
    def die_at_third(body: Body, number: int) -> Response:
        return describe_all(body) if number < 2 else Response(0, "")

    common = ("--labels", "labels.txt", "--batch", 1, "--concurrency", 1)
    with serve(die_at_third) as stub:
        result = generate(stub.url, *common)
        assert result.exit_code == 1, result.output
        assert load_output(Path("vocabulary.yaml"))["labels"].keys() == set(LABELS[:2])
        assert list_missing(Path("vocabulary.yaml.failed.json")) == LABELS[2:]
        assert load_output(Path("vocabulary.yaml"))["provenance"]["missing"] == 4
        stub.respond, num_before = describe_all, len(stub.bodies)
        result = generate(stub.url, *common)
        assert result.exit_code == 0, result.output
        asked = [label for labels in stub.asked_labels()[num_before:] for label in labels]
        assert asked == LABELS[2:]
        generate(stub.url, *common)
        assert len(stub.bodies) == num_before + 4
    data = load_output(Path("vocabulary.yaml"))
    assert list(data["labels"]) == LABELS
    assert data["provenance"]["counts"] | {"answers": 0} == {
        "requests": 0,
        "cached": 6,
        "retries": 0,
        "refused_formats": 0,
        "invalid": 0,
        "answers": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }
    assert not Path("vocabulary.yaml.failed.json").exists()


@pytest.mark.parametrize(("flags", "exit_code"), [([], 1), (["--allow-missing"], 0)])
def test_generate_missing_label_is_listed_and_decides_the_exit_code(
    workplace: Path, flags: list[str], exit_code: int
) -> None:
    def omit_first(body: Body, number: int) -> Response:
        wanted = [label for label in list_labels(body) if label != LABELS[0]]
        return answer({"labels": [build_entry(label) for label in wanted]})

    with serve(omit_first) as stub:
        result = generate(stub.url, "--labels", "labels.txt", *flags)
    assert result.exit_code == exit_code
    assert LABELS[0] in result.output
    assert list(load_output(Path("vocabulary.yaml"))["labels"]) == LABELS[1:]
    assert list_missing(Path("vocabulary.yaml.failed.json")) == [LABELS[0]]


def test_generate_nothing_valid_writes_no_vocabulary(workplace: Path) -> None:
    with serve(lambda body, number: refuse(401, f"wrong key: {KEY}")) as stub:
        result = generate(stub.url, "--labels", "labels.txt", "--allow-missing")
    assert "--api-key-env" in result.output
    assert not Path("vocabulary.yaml").exists()
    assert list_missing(Path("vocabulary.yaml.failed.json")) == LABELS


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_generate_key_is_sent_but_written_and_shown_nowhere(
    workplace: Path,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)

    def respond(body: Body, number: int) -> Response:
        return describe_all(body) if status == 200 else refuse(status, f"{KEY} is no good")

    with serve(respond) as stub:
        result = generate(stub.url, "--labels", "labels.txt", "--api-key-env", "MY_KEY")
    assert set(stub.authorizations) == {f"Bearer {KEY}"}
    written = [path for path in workplace.rglob("*") if path.is_file()]
    assert len(written) >= 2
    for path in written:
        assert KEY not in path.read_text(encoding="utf-8")
    assert KEY not in result.output
    assert KEY not in caplog.text


def test_generate_theme_that_runs_dry_keeps_what_came_and_says_how_much(workplace: Path) -> None:
    def name_five(body: Body, number: int) -> Response:
        if "Actions:\n" in read_prompt(body):
            return describe_all(body)
        return answer({"labels": [f"action {index}" for index in range(5)]})

    with serve(name_five) as stub:
        result = generate(stub.url, "--theme", "a kitchen", "--count", 8)
    assert result.exit_code == 1, result.output
    data = load_output(Path("vocabulary.yaml"))
    assert list(data["labels"]) == [f"action {index}" for index in range(5)]
    assert data["provenance"]["source"] == {"theme": "a kitchen", "count": 8}
    (failure,) = json.loads(Path("vocabulary.yaml.failed.json").read_text())
    assert failure["kind"] == "theme"
    assert "5 of 8" in failure["reason"]


def test_generate_theme_tells_what_is_named_already(workplace: Path) -> None:
    def name_new(body: Body, number: int) -> Response:
        if "Actions:\n" in read_prompt(body):
            return describe_all(body)
        return answer({"labels": [f"action {number} {index}" for index in range(40)]})

    with serve(name_new) as stub:
        result = generate(stub.url, "--theme", "a kitchen", "--count", 50, "--batch", 50)
    assert result.exit_code == 0, result.output
    assert len(load_output(Path("vocabulary.yaml"))["labels"]) == 50
    assert "action 0 0" not in read_prompt(stub.bodies[0])
    assert all(f"action 0 {index}" in read_prompt(stub.bodies[1]) for index in range(40))
    assert "Name 10 " in read_prompt(stub.bodies[1])


@pytest.mark.parametrize(
    ("arguments", "promised"),
    [
        (["--labels", "labels.txt", "--batch", "2"], ["3 requests", LABELS[1]]),
        (["--theme", "a kitchen", "--count", "90"], ["3 requests", "12 requests", "a kitchen"]),
        (["--videos", "VIDEOS", "--sample", "4", "--frames", "3"], ["4 requests", "12 images"]),
    ],
    ids=["labels", "theme", "videos"],
)
def test_generate_dry_run_shows_prompts_and_cost_and_asks_nothing(
    workplace: Path, videos: tiny.VideoSet, arguments: list[str], promised: list[str]
) -> None:
    given = [str(videos.folder) if item == "VIDEOS" else item for item in arguments]
    with serve(describe_all) as stub:
        result = generate(stub.url, *given, "--dry-run")
    assert result.exit_code == 0, result.output
    assert stub.bodies == []
    for text in [*promised, "tokens", "estimate"]:
        assert text in result.stdout
    assert [path.name for path in workplace.iterdir()] == ["labels.txt"]


def test_generate_dry_run_estimates_what_is_then_asked(workplace: Path) -> None:
    with serve(describe_all) as stub:
        shown = generate(stub.url, "--labels", "labels.txt", "--batch", 2, "--dry-run").stdout
        generate(stub.url, "--labels", "labels.txt", "--batch", 2)
    sent = sum(
        len(body["messages"][0]["content"])
        + len(read_prompt(body))
        + len(json.dumps(body["response_format"]["json_schema"]["schema"]))
        for body in stub.bodies
    )
    assert f"3 requests, about {sent // 4} tokens in" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--theme", "x", "--labels", "labels.txt"],
        ["--theme", " "],
        ["--labels", "nowhere.txt"],
        ["--videos", "nowhere"],
        ["--labels", "labels.txt", "--out", "labels.txt"],
        ["--labels", "labels.txt", "--cache", "labels.txt"],
    ],
    ids=["none", "two", "empty", "no-file", "no-videos", "own-labels", "cache-is-a-file"],
)
def test_generate_impossible_input_is_refused_before_any_request(
    workplace: Path, arguments: list[str]
) -> None:
    before = (workplace / "labels.txt").read_text()
    with serve(describe_all) as stub:
        result = generate(stub.url, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip()
    assert "Traceback" not in result.output
    assert stub.bodies == []
    assert (workplace / "labels.txt").read_text() == before
