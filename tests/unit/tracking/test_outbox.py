"""What a service has and lacks, kept through processes, stores and copies."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lssl_ray.errors import ConfigError
from lssl_ray.tracking.journal import TIME_KEY
from lssl_ray.tracking.outbox import Outbox, load_outbox, mark_done
from lssl_ray.tracking.service import Point, TrackedRun, build_points

RUN = TrackedRun(
    uri="http://a",
    experiment="e",
    run_name="r",
    run_folder="/runs/r",
    kind="train",
    parent_run_id="parent",
    params={"a": "1"},
    tags={"t": "1"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tracking" / "run.json"


def build_row(step: int, value: float) -> dict[str, float]:
    return {TIME_KEY: 1.5, "step": step, "loss/total": value}


def fill(path: Path) -> Outbox:
    """A run whose rows up to step 4 arrived, with nothing else due."""
    outbox = Outbox(path, RUN)
    outbox.adopt("id", {})
    outbox.described = True
    for step in (2, 4):
        outbox.mark_points(build_points(build_row(step, 0.5)))
    outbox.save()
    return outbox


def test_points_are_the_finite_figures_of_named_sections() -> None:
    row = {
        TIME_KEY: 12.3456,
        "step": 7,
        "num_steps": 9,
        "loss/a": 1,
        "loss/b": float("nan"),
        "loss/c": float("-inf"),
        "reason": "loss/d",
        "held_back/e": "high",
        "health/collapsed": True,
    }
    assert build_points(row) == [
        Point("loss/a", 1.0, 7, 12346),
        Point("health/collapsed", 1.0, 7, 12346),
    ]


def test_outbox_read_again_lacks_only_what_did_not_arrive(path: Path) -> None:
    fill(path)
    again = Outbox(path, replace(RUN, params={"a": "2"}, tags={"t": "2", "u": "3"}, uid="other"))
    assert (again.run_id, again.has_due) == ("id", False)
    assert again.select_points(build_row(4, 0.7)) == []
    assert [point.step for point in again.select_points(build_row(3, 0.7))] == [3]
    assert again.run.params == {"a": "1"}  # of the first session
    assert again.run.tags == {"t": "1", "u": "3"}
    assert again.run.uid != "other"


@pytest.mark.parametrize(
    "change", [{"uri": "http://b"}, {"experiment": "f"}, {"run_folder": "/runs/copy"}]
)
def test_outbox_for_another_place_lacks_everything(path: Path, change: dict[str, str]) -> None:
    outbox = fill(path)
    outbox.add_result(build_row(4, 0.9) | {"zero_shot/val/adapted": 0.5})
    outbox.set_status("FINISHED", unix_ms=1)
    mark_done(outbox.list_results())
    outbox.mark_status(("FINISHED", 1))
    outbox.save()
    assert not outbox.has_due
    moved = Outbox(path, replace(RUN, **change, uid="new"))
    assert (moved.run_id, moved.described, moved.run.uid) == (None, False, "new")
    assert len(moved.select_points(build_row(4, 0.7))) == 1
    assert len(moved.list_results()) == 1 and moved.is_status_due


def test_outbox_loaded_for_another_store_leaves_the_parent_behind(path: Path) -> None:
    fill(path)
    assert load_outbox(path).run.parent_run_id == "parent"
    assert load_outbox(path, experiment="f").run.parent_run_id == "parent"
    moved = load_outbox(path, uri="http://b")
    assert (moved.run.uri, moved.run.parent_run_id, moved.run_id) == ("http://b", None, None)


def test_result_said_twice_is_due_once_and_a_new_one_again(path: Path) -> None:
    outbox = fill(path)
    outbox.add_result(build_row(4, 0.5))
    mark_done(outbox.list_results())
    outbox.add_result(build_row(4, 0.5) | {TIME_KEY: 99.0})
    assert outbox.list_results() == []
    outbox.add_result(build_row(4, 0.6))
    assert [item["row"]["loss/total"] for item in outbox.list_results()] == [0.6]


def test_result_that_the_service_has_is_not_due(path: Path) -> None:
    outbox = Outbox(path, RUN)
    known = [Point("loss/total", 0.4, 2, 10), Point("loss/total", 0.5, 4, 20)]
    outbox.adopt("id", {"loss/total": known})
    outbox.add_result(build_row(4, 0.5))
    assert outbox.list_results() == []
    assert outbox.select_points(build_row(2, 0.1)) == []


def test_artifact_is_due_when_it_changed_and_someone_asks(path: Path, tmp_path: Path) -> None:
    outbox = fill(path)
    file = tmp_path / "summary.json"
    file.write_text("{}")
    outbox.add_artifact(file, None)
    (item,) = outbox.list_artifacts()
    assert item["path"] == "summary.json"  # found when the folder has moved
    item["sent"], item["due"] = [1, 2, file.stat().st_mtime_ns], False
    outbox.add_artifact(file, None)
    assert outbox.list_artifacts() == []
    file.write_text("[1, 2]")
    assert outbox.list_artifacts() == []
    outbox.renew_artifacts()
    assert len(outbox.list_artifacts()) == 1


def test_status_and_tags_changed_while_they_were_sent_stay_due(path: Path) -> None:
    outbox = fill(path)
    outbox.set_status("RUNNING", unix_ms=1)
    outbox.add_tags({"a": "1", "b": "1"})
    outbox.set_status("FINISHED", unix_ms=2)
    outbox.add_tags({"b": "2"})
    outbox.mark_status(("RUNNING", 1))
    outbox.mark_tags({"a": "1", "b": "1"})
    assert outbox.is_status_due and outbox.status == ("FINISHED", 2)
    assert outbox.list_tags() == {"b": "2"}


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 99}'])
def test_outbox_that_cant_be_read_is_refused_or_begun_anew(path: Path, content: str) -> None:
    fill(path)
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json"):
        load_outbox(path)
    outbox = Outbox(path, RUN)
    assert outbox.run_id is None
    outbox.save()
    assert json.loads(path.read_text())["version"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]
