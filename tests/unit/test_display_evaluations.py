"""What a person sees of evaluations beside training: figures, and how many wait."""

import io
from typing import Any

import pytest
from rich.console import Console

from lssl_ray.display import RunDisplay


def build_evaluated(step: int, **changes: Any) -> dict[str, Any]:
    row = {
        "step": step,
        "validation/val/zero_shot": 0.5213,
        "validation/val/knn": 0.4,
        "held_back/balance": 0.9,
        "held_back/lidar": 3.5,
        "best_step": 20,
        "validation/waiting": 0,
    }
    return row | changes


def build_trained(step: int, **changes: Any) -> dict[str, Any]:
    row = {
        "step": step,
        "num_steps": 100,
        "loss/total": 1.2,
        "data/clips_per_second": 12.3,
        "data/wait_share": 0.25,
        "data/clips_failed": 0,
    }
    return row | changes


def show(*rows: dict[str, Any], terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, emoji=False)
    with RunDisplay(console) as display:
        for row in rows:
            display.show_row(row)
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_display_shows_a_checkpoints_figures_in_a_line(terminal: bool) -> None:
    text = show(build_trained(30), build_evaluated(20), terminal=terminal)
    (line,) = [line for line in text.splitlines() if "step 20:" in line]
    for part in ("52.1", "40.0", "2 label-free", "best is step 20"):
        assert part in line


def test_display_says_how_many_wait_while_training_goes_on() -> None:
    first, second = show(
        build_trained(10, **{"validation/waiting": 3}),
        build_trained(20, **{"validation/waiting": 0}),
    ).splitlines()
    assert "3 to evaluate" in first and "evaluate" not in second


def test_display_says_why_a_checkpoint_was_not_evaluated() -> None:
    assert "[signal 9]" in show({"step": 20, "reason": "[signal 9]", "validation/waiting": 0})


def test_display_of_the_end_counts_what_waits() -> None:
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=200, emoji=False)) as display:
        for count in (2, 1, 0):
            display.show_waiting(count)
    lines = out.getvalue().splitlines()
    assert "0/2" in lines[1] and "2/2" in lines[-1]


def test_display_of_an_end_where_nothing_waits_says_nothing() -> None:
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=200, emoji=False)) as display:
        display.show_waiting(0)
    assert out.getvalue() == ""
