"""What a person sees while a run goes: one live line on a terminal, plain lines elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from lssl_ray.errors import LsslError

COUNT_LINE_SECONDS = 10.0
EXIT_REFUSED = 2
LOG_WIDTH = 120  # of what is no terminal; tables of a sweep do not fit into rich's 80


class RunDisplay:
    """Phases, training progress with ETA, and result tables.

    Args:
        console: Where to write; a terminal gets a live line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._first: tuple[float, float] | None = None
        self._last_count: float | None = None
        self._awaited: tuple[int, int] | None = None  # at first, and now
        # Rows come from a thread of their own, also while the main one waits for evaluations.
        self._lock = threading.RLock()

    def __enter__(self) -> "RunDisplay":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_live()

    def show_phase(self, text: str) -> None:
        """A new part of the run begins."""
        self._stop_live()
        self._first = self._last_count = None
        self._console.print(f"[bold]{text}[/bold]", highlight=False)

    def show_count(self, done: int, total: int, text: str, *, under_way: float = 0.0) -> None:
        """Progress of something that is counted; without a terminal a line now and then.

        Args:
            done: So many.
            total: Of so many.
            text: More about it.
            under_way: What is done of those that are not done yet, for the time that is left.
        """
        if not self._console.is_terminal and done < total:
            now = time.monotonic()
            if self._last_count is not None and now - self._last_count < COUNT_LINE_SECONDS:
                return
            self._last_count = now
        self._show(done, total, text, under_way=under_way)

    def show_row(self, row: Mapping[str, Any]) -> None:
        """A window of training steps is done, or a checkpoint evaluated beside them."""
        with self._lock:
            if "num_steps" not in row:
                self._show_evaluated(row)
                return
            failed = f"  bad {row['data/clips_failed']}" if row["data/clips_failed"] else ""
            waiting = row.get("validation/waiting")
            queue = f"  {waiting} to evaluate" if waiting else ""
            saved = "  checkpoint" if "checkpoint/asked" in row else ""
            text = (
                f"loss {row.get('loss/total', float('nan')):.3f}  "
                f"{row['data/clips_per_second']:.1f} clips/s  "
                f"wait {100 * row['data/wait_share']:.0f}%{failed}{queue}{saved}"
            )
            self._show(int(row["step"]), int(row["num_steps"]), text)

    def show_waiting(self, count: int) -> None:
        """Training is over, and so many checkpoints wait to be evaluated."""
        with self._lock:
            if self._awaited is None and count:
                self.show_phase("Evaluating the checkpoints that still wait")
                self._awaited = (count, count + 1)
            if self._awaited is not None and count < self._awaited[1]:
                total = self._awaited[0]
                self._awaited = (total, count)
                self._show(total - count, total, "checkpoints")

    def show_results(self, summary: Mapping[str, Any]) -> None:
        """Per-class accuracy before and after, and in all, per split."""
        self._stop_live()
        for split, result in summary["zero_shot"].items():
            table = Table(title=f"Zero-shot top-1 on {split} ({result['videos']} videos), %")
            for name in ("action", "videos", "CLIP", "adapted", "change"):
                table.add_column(name, justify="left" if name == "action" else "right")
            for label, row in result["per_class"].items():
                before = 100 * row["clip_right"] / row["videos"]
                after = 100 * row["adapted_right"] / row["videos"]
                table.add_row(Text(label), str(row["videos"]), *_format_pair(before, after))
            table.add_section()
            pair = _format_pair(result["clip_top1"], result["adapted_top1"])
            table.add_row("all", str(result["videos"]), *pair, style="bold")
            self._console.print(table)

    def show_table(self, table: Table) -> None:
        """A table."""
        self._stop_live()
        self._console.print(table)

    def show_lines(self, *lines: str) -> None:
        """Plain text."""
        self._stop_live()
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show_evaluated(self, row: Mapping[str, Any]) -> None:
        """One line, above a live one."""
        line = f"  step {row['step']}: {_describe_evaluated(row)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show(self, done: int, total: int, text: str, *, under_way: float = 0.0) -> None:
        text = f"{text}  ETA {self._estimate(done + under_way, total)}"
        if not self._console.is_terminal:
            self.show_lines(f"  {done}/{total}  {text}")
            return
        if self._live is None:
            self._live = Progress(
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._task = self._live.add_task("", total=total)
            self._live.start()
        assert self._task is not None
        self._live.update(self._task, completed=done, total=total, description=text)

    def _estimate(self, done: float, total: int) -> str:
        """Time left at the pace since this phase's first figure (a resumed run starts late)."""
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        first_done, first_time = self._first
        if done >= total:
            return "0:00"
        if done == first_done:
            return "-:--"
        seconds = int((total - done) * (now - first_time) / (done - first_done))
        hours, minutes = divmod(seconds // 60, 60)
        if hours:
            return f"{hours}:{minutes:02d}:{seconds % 60:02d}"
        return f"{minutes}:{seconds % 60:02d}"

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = self._task = None


@contextmanager
def open_display() -> Iterator[RunDisplay]:
    """A display, and refusals as a message and exit code 2 instead of a traceback."""
    # A path may hold what looks like markup or an emoji's name.
    errors = Console(stderr=True, emoji=False)
    shown = Console(emoji=False)
    if not shown.is_terminal and "COLUMNS" not in os.environ:
        shown.width = LOG_WIDTH
    try:
        with RunDisplay(shown) as display:
            yield display
    except LsslError as error:
        errors.print("[bold red]Error[/bold red]", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_REFUSED)


def _describe_evaluated(row: Mapping[str, Any]) -> str:
    """A checkpoint's figures in a line."""
    if "reason" in row:
        return f"not evaluated: {row['reason']}"
    parts = []
    for name, value in row.items():
        if name.startswith("validation/") and name.endswith(("/zero_shot", "/knn")):
            _, split, figure = name.split("/")
            title = {"zero_shot": "zero-shot", "knn": "k-NN"}[figure]
            parts.append(f"{split} {title} {100 * value:.1f} %")
    num_scores = sum(name.startswith("held_back/") for name in row)
    parts += [f"{num_scores} label-free scores"] if num_scores else []
    parts += [f"best is step {row['best_step']}"] if "best_step" in row else []
    return ", ".join(parts)


def _format_pair(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}"
