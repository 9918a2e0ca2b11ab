"""The leaderboard as CSV and as a table on a console."""

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console
from sweep_parts import SELECT, build_trial

from lssl_ray.sweep.leaderboard import (
    build_leaderboard,
    format_leaderboard,
    list_reasons,
    write_leaderboard,
)
from lssl_ray.sweep.trials import TrialRecord

SCHEDULE = {"shape": "linear", "start": 0.1, "end": 0.05, "until": 0.5}


def build_trials() -> list[TrialRecord]:
    values: list[dict[str, Any]] = [
        {"variant": "lss-a", "objective.teacher_temperature": SCHEDULE},
        {"variant": "lss-b", "objective.teacher_temperature": 0.05},
        {"variant": "lss-c", "objective.teacher_temperature": 0.025},
    ]
    meant = [{**row, "concepts.labels": f"bank:{row.pop('variant')}"} for row in map(dict, values)]
    return [
        build_trial("t1", values[0], 0.5, seed=0, settings=meant[0], truth=0.51),
        build_trial("t2", values[0], 0.52, seed=1, settings=meant[0], truth=0.53),
        build_trial("t3", values[1], 0.4, seed=0, settings=meant[1], truth=0.6),
        build_trial(
            "t4", values[2], 0.1, status="failed", steps=3, settings=meant[2], reason='a, "b"'
        ),
    ]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def show(trials: list[TrialRecord], *, limit: int = 20, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(format_leaderboard(build_leaderboard(trials, select=SELECT), limit=limit))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_leaderboard_csv_holds_names_real_settings_and_every_trial(tmp_path: Path) -> None:
    path = tmp_path / "out" / "leaderboard.csv"
    write_leaderboard(build_leaderboard(build_trials(), select=SELECT), path)
    first, second, last = read(path)
    assert (first["rank"], first["variant"], first["concepts.labels"]) == (
        "1",
        "lss-a",
        "bank:lss-a",
    )
    assert first["objective.teacher_temperature"].startswith('{"shape": "linear"')
    assert (first["seeds"], first["trials"], first["within_noise"]) == ("2", "t1 t2", "best")
    assert float(first["score"]) == 0.51
    assert abs(float(first["regret"]) - 0.08) < 1e-9
    assert second["within_noise"] == "unknown"
    assert (last["rank"], last["status"], last["trials"]) == ("", "failed", "t4")
    assert last["reason"].endswith('a, "b"') and "0.1" in last["reason"]


def test_leaderboard_csv_replaces_an_older_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    write_leaderboard(build_leaderboard(build_trials(), select=SELECT), path)
    write_leaderboard(build_leaderboard(build_trials()[:1], select=SELECT), path)
    assert len(read(path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_leaderboard_table_shows_scores_noise_and_failures() -> None:
    text = show(build_trials())
    assert "0.5100 +- 0.0141" in text
    assert "variant=lss-a" in text and "linear 0.1 to 0.05 until 0.5" in text
    assert "noise unknown" in text and "failed" in text


def test_leaderboard_table_always_shows_failures_and_counts_what_it_hides() -> None:
    trials = [build_trial(f"t{i:02d}", {"x": i}, i / 100) for i in range(30)]
    trials.append(build_trial("lost", {"x": 99}, None, status="failed", reason="no videos"))
    text = show(trials, limit=5)
    assert "x=29" in text and "x=24" not in text
    assert "x=99" in text and "25 more" in text


def test_leaderboard_table_fits_80_columns_and_reasons_stand_beside_it() -> None:
    why = "stopped at 25 % of its steps: the lower half there"
    trials = [
        build_trial("c001-s0", {"optim.learning_rate": 0.001}, 0.5),
        build_trial("c002-s0", {"optim.learning_rate": 0.002}, 0.4, status="stopped_early"),
        build_trial("c003-s0", {"optim.learning_rate": 0.003}, None, status="failed", reason=why),
    ]
    text = show(trials, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "stopped early" in text and "lower half" not in text
    stopped, failed = list_reasons(build_leaderboard(trials, select=SELECT))
    assert stopped.startswith("c002-s0") and "0.4" in stopped
    assert failed.startswith("c003-s0") and failed.endswith(why)


def test_leaderboard_table_at_80_columns_cuts_nothing_off_with_a_truth_beside() -> None:
    trials = [
        build_trial("t1", {"objective.student_temperature": 0.1}, 0.5, truth=0.5),
        build_trial("t2", {"objective.student_temperature": 0.05}, 0.4, truth=0.6),
    ]
    lines = show(trials, width=80).splitlines()
    assert "noise unknown" in " ".join(" ".join(lines).replace("\u2502", " ").split())
    assert all(line.rstrip()[-1] in "\u2502\u2503\u2529\u2513\u2518" for line in lines[1:-2])


def test_leaderboard_reasons_of_rows_that_are_not_shown_are_left_out() -> None:
    trials = [
        build_trial(f"t{i:02d}", {"x": i}, i / 100, status="stopped_early", steps=i)
        for i in range(10)
    ]
    trials.append(build_trial("lost", {"x": 99}, None, status="failed", reason="no videos"))
    reasons = list_reasons(build_leaderboard(trials, select=SELECT), limit=2)
    assert [reason.split()[0] for reason in reasons] == ["t09", "t08", "lost"]


def test_leaderboard_table_takes_markup_in_texts_as_text() -> None:
    trial = build_trial("t1", {"x": "[red]"}, None, status="failed", reason="[bold] [/nonsense]")
    assert "x=[red]" in show([trial])
    assert "[/nonsense]" in list_reasons(build_leaderboard([trial], select=SELECT))[0]
