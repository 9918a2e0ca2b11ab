"""What a person sees: plain lines in a log, one live line on a terminal, honest estimates."""

import io
import time
from typing import Any

import pytest
from rich.console import Console

from lssl_ray.display import RunDisplay


class Clock:
    """The machine's monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def build_row(step: int, **changes: Any) -> dict[str, Any]:
    row = {
        "step": step,
        "num_steps": 100,
        "loss/total": 1.23456,
        "data/clips_per_second": 12.34,
        "data/wait_share": 0.256,
        "data/clips_failed": 0,
    }
    return row | changes


def open_display(*, terminal: bool = False) -> tuple[RunDisplay, io.StringIO]:
    out = io.StringIO()
    return RunDisplay(Console(file=out, force_terminal=terminal, width=60, emoji=False)), out


def test_display_without_terminal_row_is_one_plain_line() -> None:
    display, out = open_display()
    with display:
        display.show_row(build_row(10))
        display.show_row(build_row(20, **{"data/clips_failed": 7}))
    first, second = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    for part in ("10/100", "loss 1.235", "12.3 clips/s", "wait 26%", "ETA"):
        assert part in first
    assert "bad" not in first
    assert "20/100" in second and "bad 7" in second


def test_display_row_shows_a_checkpoint_that_was_asked_for() -> None:
    display, out = open_display()
    with display:
        display.show_row(build_row(10))
        display.show_row(build_row(13, **{"checkpoint/asked": 1.0}))
    assert ["checkpoint" in line for line in out.getvalue().splitlines()] == [False, True]


def test_display_row_without_a_trained_clip_has_no_loss() -> None:
    display, out = open_display()
    row = build_row(10)
    del row["loss/total"]
    display.show_row(row)
    assert "loss nan" in out.getvalue()


@pytest.mark.parametrize(
    ("first", "then", "elapsed", "eta"),
    [
        (0, 50, 30.0, "0:30"),
        (10, 20, 10.0, "1:20"),
        (50, 60, 10.0, "0:40"),  # a resumed run: only this session's pace counts
        (0, 1, 60.0, "1:39:00"),
        (98, 99, 3725.0, "1:02:05"),
        (0, 99, 9.9, "0:00"),
        (10, 10, 10.0, "-:--"),
        (99, 100, 10.0, "0:00"),
    ],
)
def test_display_eta_is_steps_left_at_this_sessions_pace(
    clock: Clock, first: int, then: int, elapsed: float, eta: str
) -> None:
    display, out = open_display()
    display.show_row(build_row(first))
    clock.seconds += elapsed
    display.show_row(build_row(then))
    one, two = out.getvalue().splitlines()
    assert one.endswith("ETA -:--")
    assert two.endswith(f"ETA {eta}")


def test_display_new_phase_starts_its_own_estimate(clock: Clock) -> None:
    display, out = open_display()
    display.show_count(1, 4, "videos")
    clock.seconds += 100
    display.show_phase("Training")
    display.show_count(1, 4, "steps")
    clock.seconds += 10
    display.show_count(2, 4, "steps")
    assert out.getvalue().splitlines()[1:] == [
        "Training",
        "  1/4  steps  ETA -:--",
        "  2/4  steps  ETA 0:20",
    ]


def test_display_estimate_counts_what_is_under_way(clock: Clock) -> None:
    display, out = open_display()
    display.show_count(0, 4, "trials")
    clock.seconds += 30
    display.show_count(0, 4, "trials", under_way=0.5)
    assert out.getvalue().splitlines()[1] == "  0/4  trials  ETA 3:30"


def test_display_on_terminal_leaves_no_live_line_behind() -> None:
    display, out = open_display(terminal=True)
    with display:
        display.show_row(build_row(10))
        display.show_row(build_row(20))
    written = out.getvalue()
    assert "20/100" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is back
    assert "20/100" not in written[written.rindex("\x1b[2K") :]


def test_display_lines_keep_what_looks_like_markup() -> None:
    display, out = open_display()
    line = "Run folder: /data/[red]/:car:/runs/" + "long/" * 20
    display.show_lines(line)
    assert out.getvalue() == line + "\n"


def test_display_results_hold_every_class_and_the_total() -> None:
    display, out = open_display()
    result = {
        "videos": 8,
        "clip_top1": 37.5,
        "adapted_top1": 50.0,
        "per_class": {
            "to [run]": {"videos": 4, "clip_right": 3, "adapted_right": 1},
            "to jump": {"videos": 4, "clip_right": 0, "adapted_right": 3},
        },
    }
    display.show_results({"zero_shot": {"test": result}})
    rows = [line.replace("\u2502", " ").split() for line in out.getvalue().splitlines()]
    assert ["to", "[run]", "4", "75.0", "25.0", "-50.0"] in rows
    assert ["to", "jump", "4", "0.0", "75.0", "+75.0"] in rows
    assert ["all", "8", "37.5", "50.0", "+12.5"] in rows
    assert "test (8 videos)" in out.getvalue()


def test_display_without_terminal_counts_are_a_line_now_and_then(clock: Clock) -> None:
    display, out = open_display()
    with display:
        for done in range(1, 101):
            display.show_count(done, 100, "videos")
            clock.seconds += 1
    lines = out.getvalue().splitlines()
    assert lines[0].split()[0] == "1/100" and lines[-1].split()[0] == "100/100"
    assert len(lines) == 11  # the first, one per ten seconds, the last
