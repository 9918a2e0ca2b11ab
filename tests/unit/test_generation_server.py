"""Generation against a real server on loopback: retries, fallbacks, concurrency, the key."""

import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
from chat_stub import (
    Body,
    Response,
    answer,
    describe_all,
    list_labels,
    refuse,
    serve,
)
from describe_labels import KEY, LABELS, describe, expected_entries, fail_first

from lssl_ray.errors import ConfigError
from lssl_ray.generation.protocol import parse_host, parse_retry_after
from lssl_ray.generation.server import Counts


def test_describe_good_answers_give_every_label_in_order(tmp_path: Path) -> None:
    with serve(describe_all) as stub:
        entries, failures, counts = describe(stub.url, tmp_path)
    assert list(entries.items()) == list(expected_entries().items())
    assert failures == []
    assert stub.asked_labels() == [[*LABELS[:2]], [*LABELS[2:4]], [*LABELS[4:]]]
    assert counts == Counts(
        requests=3,
        answers={"json_schema": 3, "json_object": 0, "text": 0},
        prompt_tokens=30,
        completion_tokens=15,
    )
    for body in stub.bodies:
        wanted = body["response_format"]["json_schema"]
        assert body["response_format"]["type"] == "json_schema"
        assert wanted["strict"] is True
        assert wanted["schema"]["additionalProperties"] is False
        assert wanted["schema"]["required"] == ["labels"]


@pytest.mark.parametrize(
    "bad",
    [
        refuse(429, headers={"Retry-After": "0"}),
        refuse(500),
        refuse(503),
        refuse(408),
        Response(0, ""),
    ],
    ids=["429", "500", "503", "408", "dropped"],
)
def test_describe_passing_errors_are_retried(tmp_path: Path, bad: Response) -> None:
    with serve(fail_first(bad, bad)) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, batch=8)
    assert entries == expected_entries()
    assert failures == []
    assert (counts.requests, counts.retries, counts.invalid) == (3, 2, 0)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set at the end: whoever hangs on it goes."""
    event = threading.Event()
    yield event
    event.set()


def test_describe_hanging_request_times_out_and_is_sent_again(
    tmp_path: Path, released: threading.Event
) -> None:
    def respond(body: Body, number: int) -> Response:
        if number == 0:
            released.wait(30)
        return describe_all(body)

    started = time.monotonic()
    with serve(respond) as stub:
        entries, failures, counts = describe(
            stub.url, tmp_path, batch=8, timeout=1.0, max_retries=9
        )
        assert time.monotonic() - started < 29
        released.set()
    assert entries == expected_entries()
    assert failures == []
    # A busy machine may need more than one more try.
    assert counts.retries >= 1
    assert (counts.requests, counts.invalid) == (counts.retries + 1, 0)


def test_describe_retry_after_is_waited_for(tmp_path: Path) -> None:
    times: list[float] = []

    def respond(body: Body, number: int) -> Response:
        times.append(time.monotonic())
        return refuse(429, headers={"Retry-After": "0.3"}) if number == 0 else describe_all(body)

    with serve(respond) as stub:
        describe(stub.url, tmp_path, batch=8)
    assert times[1] - times[0] >= 0.3


def test_describe_long_retry_after_stops_the_run(tmp_path: Path) -> None:
    with serve(lambda body, number: refuse(429, headers={"Retry-After": "7200"})) as stub:
        entries, failures, counts = describe(stub.url, tmp_path)
    assert entries == {}
    assert counts.requests == 1
    assert [failure.name for failure in failures] == list(LABELS)
    assert all("7200" in failure.reason for failure in failures)


def test_retry_after_reads_seconds_and_dates() -> None:
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    assert parse_retry_after(None) == parse_retry_after("nonsense") == parse_retry_after("-3") == 0
    assert parse_retry_after("2.5") == 2.5
    assert 90 <= parse_retry_after(soon) <= 100


def test_describe_dead_server_is_given_up_and_the_rest_listed(tmp_path: Path) -> None:
    labels = tuple(f"action number {number}" for number in range(20))
    with serve(lambda body, number: Response(0, "")) as stub:
        entries, failures, counts = describe(
            stub.url, tmp_path, labels=labels, batch=1, max_retries=1
        )
    assert entries == {}
    assert [failure.name for failure in failures] == list(labels)
    assert counts.requests == len(stub.bodies) == 6  # three requests of two tries each
    assert all("--max-retries" in failure.reason for failure in failures)


def test_describe_one_request_that_fails_costs_only_its_labels(tmp_path: Path) -> None:
    def respond(body: Body, number: int) -> Response:
        return refuse(500) if LABELS[0] in list_labels(body) else describe_all(body)

    with serve(respond) as stub:
        entries, failures, _ = describe(stub.url, tmp_path, batch=1)
    assert entries == expected_entries(LABELS[1:])
    assert [failure.name for failure in failures] == [LABELS[0]]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_describe_refused_key_or_model_stops_at_once_without_naming_the_key(
    tmp_path: Path, status: int
) -> None:
    with serve(lambda body, number: refuse(status, f"bad key {KEY}")) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, api_key=KEY)
    assert entries == {}
    assert counts.requests == 1
    assert len(failures) == len(LABELS)
    for failure in failures:
        assert str(status) in failure.reason
        assert KEY not in failure.reason


@pytest.mark.parametrize(
    ("refused", "used"),
    [({"json_schema"}, "json_object"), ({"json_schema", "json_object"}, "text")],
    ids=["to-object", "to-text"],
)
def test_describe_refused_format_falls_back_once_for_all(
    tmp_path: Path, refused: set[str], used: str
) -> None:
    def respond(body: Body, number: int) -> Response:
        if body.get("response_format", {"type": "text"})["type"] in refused:
            return refuse(400, "response_format is not supported")
        good = describe_all(body)
        text = good.body["choices"][0]["message"]["content"]
        return good if used == "json_object" else answer(f"<think>{{</think>```json\n{text}\n```")

    notes: list[str] = []
    with serve(respond) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, notes=notes)
    assert entries == expected_entries()
    assert failures == []
    assert counts.answers == {"json_schema": 0, "json_object": 0, "text": 0} | {used: 3}
    assert counts.refused_formats == len(refused)
    assert counts.requests == 3 + len(refused)
    assert counts.retries == counts.invalid == 0
    assert len(notes) == 1
    for body in stub.bodies[len(refused) :]:
        assert '"additionalProperties"' in body["messages"][0]["content"]


def test_describe_request_refused_in_every_format_fails_alone(tmp_path: Path) -> None:
    def respond(body: Body, number: int) -> Response:
        return refuse(400, "too long") if LABELS[0] in list_labels(body) else describe_all(body)

    with serve(respond) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, batch=1)
    assert entries == expected_entries(LABELS[1:])
    assert [(failure.kind, failure.name) for failure in failures] == [("label", LABELS[0])]
    assert "too long" in failures[0].reason
    assert counts.answers == {"json_schema": 4, "json_object": 0, "text": 0}


def test_describe_concurrency_reaches_the_limit_and_never_more(tmp_path: Path) -> None:
    limit = 3
    together = threading.Barrier(limit)

    def respond(body: Body, number: int) -> Response:
        together.wait(20)  # nobody is answered before `limit` are here
        return describe_all(body)

    labels = tuple(f"action number {number}" for number in range(4 * limit))
    with serve(respond) as stub:
        entries, _, _ = describe(stub.url, tmp_path, labels=labels, batch=1, concurrency=limit)
    assert list(entries) == list(labels)
    assert stub.max_in_flight == limit


def test_describe_key_is_sent_as_bearer_and_none_without(tmp_path: Path) -> None:
    with serve(describe_all) as stub:
        describe(stub.url, tmp_path / "a", api_key=KEY, batch=8)
        describe(stub.url, tmp_path / "b", api_key=None, batch=8)
    assert stub.authorizations == [f"Bearer {KEY}", None]


def test_server_without_the_client_library_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"lssl_ray\[generate\]"):
        describe("http://127.0.0.1:9/v1", tmp_path)


@pytest.mark.parametrize(
    "url",
    ["", "host/v1", "ftp://host/v1", f"http://user:{KEY}@host/v1", f"http://host/v1?key={KEY}"],
)
def test_host_impossible_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_host(url)
    assert "--base-url" in str(refusal.value)
    assert KEY not in str(refusal.value)


def test_host_of_good_address_is_name_and_port() -> None:
    assert parse_host("http://127.0.0.1:8000/v1") == "127.0.0.1:8000"
    assert parse_host("https://models.example/v1") == "models.example"
