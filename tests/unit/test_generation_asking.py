"""Bad answers are asked again, good ones never: against a real server on loopback."""

from pathlib import Path

import pytest
from chat_stub import (
    Body,
    Response,
    answer,
    build_entry,
    describe_all,
    list_labels,
    read_prompt,
    serve,
)
from describe_labels import LABELS, describe, expected_entries, fail_first


@pytest.mark.parametrize(
    "reply",
    [
        Response(200, "<html>maintenance</html>"),
        Response(200, {"choices": []}),
        answer(""),
        answer("I would rather talk about the weather."),
        answer({"labels": "none"}),
        answer('{"labels": ' * 3),
    ],
    ids=["html", "no-choices", "empty", "nonsense", "no-list", "broken"],
)
def test_describe_unreadable_answer_is_asked_again(tmp_path: Path, reply: Response) -> None:
    with serve(fail_first(reply)) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, batch=8)
    assert entries == expected_entries()
    assert failures == []
    assert (counts.requests, counts.invalid, counts.retries) == (2, 1, 0)
    assert stub.bodies[1]["messages"][:2] == stub.bodies[0]["messages"]
    assert len(stub.bodies[1]["messages"]) > 2


def test_describe_cut_off_answer_gives_nothing_and_names_batch(tmp_path: Path) -> None:
    def respond(body: Body, number: int) -> Response:
        text = describe_all(body).body["choices"][0]["message"]["content"]
        # Even where the text happens to be whole.
        return answer(text if number == 0 else text[: len(text) // 2], finish_reason="length")

    with serve(respond) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, batch=8)
    assert entries == {}
    assert [failure.name for failure in failures] == list(LABELS)
    assert all("--batch" in failure.reason for failure in failures)
    assert counts.invalid == counts.requests == len(stub.bodies) == 3


def test_describe_missing_label_alone_is_asked_again(tmp_path: Path) -> None:
    def respond(body: Body, number: int) -> Response:
        wanted = LABELS[:-1] if number == 0 else LABELS[-1:]
        return answer({"labels": [build_entry(label) for label in wanted]})

    with serve(respond) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, batch=8)
    assert entries == expected_entries()
    assert failures == []
    assert (counts.requests, counts.invalid) == (2, 1)
    last = stub.bodies[1]["messages"][-1]["content"]
    assert LABELS[-1] in last
    assert LABELS[0] not in last


def test_describe_label_that_never_comes_is_listed_and_the_others_kept(tmp_path: Path) -> None:
    def respond(body: Body, number: int) -> Response:
        labels = [label for label in list_labels(body) if label != LABELS[1]]
        return answer({"labels": [build_entry(label) for label in [*labels, "inventing labels"]]})

    with serve(respond) as stub:
        entries, failures, counts = describe(stub.url, tmp_path, batch=8)
        again, _, recount = describe(stub.url, tmp_path, batch=8)
    assert entries == again == expected_entries((LABELS[0], *LABELS[2:]))
    assert [failure.name for failure in failures] == [LABELS[1]]
    assert counts.invalid == counts.requests == 3
    # A second run starts from what is there.
    assert recount.requests == 3
    for body in stub.bodies[3:]:
        assert LABELS[0] not in body["messages"][-1]["content"]


def test_describe_cached_answers_are_not_asked_again_and_damaged_ones_are(tmp_path: Path) -> None:
    with serve(describe_all) as stub:
        first, _, _ = describe(stub.url, tmp_path)
        second, _, counts = describe(stub.url, tmp_path)
        assert first == second == expected_entries()
        assert (counts.requests, counts.cached, len(stub.bodies)) == (0, 3, 3)
        damaged = sorted(tmp_path.glob("*.json"))
        damaged[0].write_text(damaged[0].read_text()[:-20])
        damaged[1].write_text('{"answer": {"labels": [{"label": "waving"}]}}')
        third, failures, counts = describe(stub.url, tmp_path)
    assert third == first
    assert failures == []
    assert (counts.requests, counts.cached) == (2, 1)
    assert len(sorted(tmp_path.iterdir())) == 3  # nothing half-written stays


def test_describe_other_numbers_are_another_question(tmp_path: Path) -> None:
    with serve(describe_all) as stub:
        describe(stub.url, tmp_path, labels=LABELS[:2])
        describe(stub.url, tmp_path, labels=LABELS[1:3])
    prompts = {read_prompt(body) for body in stub.bodies}
    assert len(prompts) == len(stub.bodies) == 2
