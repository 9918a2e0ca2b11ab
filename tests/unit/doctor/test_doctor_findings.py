"""Findings and their report: a check that fails is one of them, and the rest goes on."""

import io
import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from lssl_ray.doctor.findings import CheckUp, Finding, run_check
from lssl_ray.errors import DataError

GOOD = Finding("space", "ok", "10 GiB")
BAD = Finding("labels", "problem", "no node has [red]pool=x", "start one")


def test_check_that_refuses_is_a_problem_with_its_message() -> None:
    def refuse() -> Finding:
        raise DataError("m.parquet: there is no such file. Make one.")

    (finding,) = run_check("manifest", refuse)
    assert (finding.name, finding.status) == ("manifest", "problem")
    assert finding.found == "m.parquet: there is no such file. Make one."


@pytest.mark.parametrize(
    "error", [RuntimeError("first\nlast"), KeyError("last"), OSError(28, "last"), MemoryError()]
)
def test_check_that_crashes_is_a_problem_and_the_others_go_on(error: Exception) -> None:
    def crash() -> Finding:
        raise error

    up = CheckUp()
    assert not up.run("first", crash)
    assert up.run("second", lambda: GOOD)
    crashed, good = up.findings
    assert (crashed.name, crashed.status, good) == ("first", "problem", GOOD)
    assert type(error).__name__ in crashed.found
    assert "last" in crashed.found or isinstance(error, MemoryError)


def test_check_that_crashes_between_two_findings_is_a_problem() -> None:
    def find() -> Iterator[Finding]:
        yield GOOD
        raise ValueError("halfway")

    assert [finding.status for finding in run_check("two", find)] == ["problem"]


def test_check_interrupted_by_the_user_ends() -> None:
    def interrupt() -> Finding:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check("slow", interrupt)


@pytest.mark.parametrize(
    ("status", "has_problem"),
    [("ok", False), ("warning", False), ("skipped", False), ("problem", True)],
)
def test_report_has_a_problem_only_with_one(status: str, has_problem: bool) -> None:
    up = CheckUp()
    up.run("one", lambda: GOOD)
    up.run("two", lambda: Finding("two", status, "so", "do"))  # type: ignore[arg-type]
    assert up.report().has_problem == has_problem


def test_report_as_json_and_as_table_have_all_of_it() -> None:
    up = CheckUp()
    up.run("space", lambda: GOOD)
    up.run("labels", lambda: BAD)
    up.skip("no recipe", "clip", "manifest")
    report = up.report()
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["counts"] == {"ok": 1, "warning": 0, "problem": 1, "skipped": 2}
    assert plain["findings"][1] == {
        "name": "labels",
        "status": "problem",
        "found": "no node has [red]pool=x",
        "remedy": "start one",
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.to_table())
    shown = console.export_text()
    for text in ("space", "10 GiB", "[red]pool=x", "-> start one", "clip", "skipped"):
        assert text in shown
