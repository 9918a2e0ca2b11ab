"""Rules about a cluster: answers, clocks, labels, room, files, who may reach it."""

import pytest
from doctor_samples import build_facts, build_node

from lssl_ray.doctor.nodes import (
    Access,
    judge_answers,
    judge_clocks,
    judge_dashboard,
    judge_files,
    judge_labels,
    judge_room,
    judge_seen,
    judge_store,
    judge_token,
)

TRAIN = {"cluster.train_labels": {"pool": "train"}}


def test_nodes_that_all_answer_pass() -> None:
    finding = judge_answers([build_node("one"), build_node("two")])
    assert finding.status == "ok"
    assert "one (8 cores, pool=train)" in finding.found


def test_nodes_without_answer_are_a_problem_by_name() -> None:
    silent = build_node("silent", facts=None, failure="nothing within 5 s")
    finding = judge_answers([build_node("one"), silent])
    assert finding.status == "problem"
    assert "1 of 2" in finding.found
    assert "silent: nothing within 5 s" in finding.found


def test_nodes_that_are_taken_away_are_a_warning() -> None:
    going = build_node("going", facts=None, is_draining=True)
    finding = judge_answers([build_node("one"), going])
    assert (finding.status, "going" in finding.found) == ("warning", True)


@pytest.mark.parametrize(
    ("started", "answered", "ahead", "status"),
    [
        (1000.0, 1001.0, 0.0, "ok"),
        (1002.9, 1003.9, 1.9, "ok"),  # may be an answer that took its time
        (1006.0, 1007.0, 5.0, "warning"),  # it answered before we heard of it
        (994.0, 995.0, -5.0, "warning"),  # it had the question before we asked
        (1100.0, 1101.0, 99.0, "problem"),
        (400.0, 401.0, -599.0, "problem"),
    ],
)
def test_clocks_off_by_more_than_the_question_took_are_found(
    started: float, answered: float, ahead: float, status: str
) -> None:
    node = build_node("off", facts=build_facts(started=started, answered=answered))
    assert node.clock_ahead == pytest.approx(ahead)
    finding = judge_clocks([build_node("one"), node])
    assert finding.status == status
    assert ("off is" in finding.found) == (status != "ok")


def test_labels_of_a_living_node_pass() -> None:
    finding = judge_labels({**TRAIN, "cluster.decode_labels": {}}, [build_node()], can_grow=False)
    assert finding.status == "ok"


@pytest.mark.parametrize(("can_grow", "status"), [(False, "problem"), (True, "warning")])
def test_labels_of_no_node_are_refused_unless_nodes_can_come(can_grow: bool, status: str) -> None:
    other = build_node(labels={"pool": "decode", "ray.io/node-id": "abc"})
    finding = judge_labels(TRAIN, [other], can_grow=can_grow)
    assert finding.status == status
    assert "cluster.train_labels" in finding.found
    assert "pool=decode" in finding.found
    assert "ray.io" not in finding.found
    assert ("autoscaler" in finding.found) == can_grow


def test_labels_of_a_node_without_cores_don_t_count() -> None:
    head = build_node("head", resources={"memory": 1.0})
    assert judge_labels(TRAIN, [head], can_grow=False).status == "problem"


@pytest.mark.parametrize(
    ("fitting", "can_grow", "status"),
    [(1, False, "ok"), (0, True, "warning"), (0, False, "problem")],
)
def test_room_for_a_whole_run_is_wanted(fitting: int, can_grow: bool, status: str) -> None:
    finding = judge_room(num_fitting=fitting, described="4 workers", can_grow=can_grow)
    assert (finding.status, "4 workers" in finding.found) == (status, True)


def test_object_store_is_counted_over_all_nodes() -> None:
    nodes = [build_node("one"), build_node("two")]  # 1000 MiB each
    assert judge_store(nodes, wanted_mib=2000.0).status == "ok"
    assert judge_store(nodes, wanted_mib=2001.0).status == "warning"


def test_weights_that_are_missing_or_others_are_named() -> None:
    here = {"/w/clip.bin": "abc"}
    assert judge_files(here, {"one": {"/w/clip.bin": "abc"}}).status == "ok"
    finding = judge_files(
        here, {"same": dict(here), "none": {"/w/clip.bin": None}, "other": {"/w/clip.bin": "xyz"}}
    )
    assert finding.status == "problem"
    assert "none: /w/clip.bin can not be read" in finding.found
    assert "other: /w/clip.bin is another file" in finding.found
    assert "same" not in finding.found


def test_paths_that_a_node_does_not_see_are_a_problem() -> None:
    assert judge_seen([]).status == "ok"
    finding = judge_seen(["run.folder: /runs is not there on 10.0.0.2"])
    assert (finding.status, "10.0.0.2" in finding.found) == ("problem", True)


@pytest.mark.parametrize(
    ("is_asked", "is_on", "status"),
    [
        (True, False, "ok"),
        (None, True, "ok"),
        (None, False, "warning"),
        (False, True, "warning"),  # we bring one, and nobody looks at it
    ],
)
def test_token_that_nobody_asks_for_is_a_warning(
    is_asked: bool | None, is_on: bool, status: str
) -> None:
    access = Access(dashboard=None, is_token_asked=is_asked, is_token_on=is_on)
    assert judge_token(access).status == status


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (None, "ok"),
        ("", "ok"),
        ("127.0.0.1:8265", "ok"),
        ("http://localhost:8265", "ok"),
        ("[::1]:8265", "ok"),
        ("0.0.0.0:8265", "warning"),
        ("10.0.0.4:8265", "warning"),
        ("12.7.0.1:8265", "warning"),
    ],
)
def test_dashboard_beyond_loopback_is_a_warning(address: str | None, status: str) -> None:
    access = Access(dashboard=address, is_token_asked=True, is_token_on=True)
    assert judge_dashboard(access).status == status
