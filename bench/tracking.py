"""What tracking costs a training step: no tracking, a healthy server, a frozen one, none at all.

Everything runs in one process, as with `--local`: the worst case, because on Ray the steps run in
processes of their own. The share that counts is the processor time of all threads but the training
one, over the time of the steps; the ratio of step times shows the machine's noise as well.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from lssl_ray.tracking.base import NullTracker, Tracker
from lssl_ray.tracking.journal import Journal

CASES = ("no tracking", "healthy", "answers nothing", "down")
NUM_METRICS = 45  # of a row of a run with both spaces
TARGET_PERCENT = 1.0


@dataclass(frozen=True)
class Outcome:
    """One pass over some steps.

    Attributes:
        step_seconds: Median wall time of a step, with its share of the journal.
        tracking_percent: Processor time of all other threads over the time of the steps.
        close_seconds: What ending the tracked run took.
        failed: Attempts that the server did not take.
    """

    step_seconds: float
    tracking_percent: float
    close_seconds: float
    failed: int


class Server:
    """`mlflow server` on loopback over a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it answers."""
        if self._process is not None:
            return
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self._folder / "artifacts")),
        ]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        while self._process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return
            time.sleep(0.1)
        raise SystemExit(f"The server ended; see {self._folder / 'server.log'}.")

    def signal(self, number: signal.Signals) -> None:
        """To the server and its workers."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Connections are refused from now on."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def build_step(milliseconds: float) -> Callable[[], None]:
    """A training step of about that length on one thread: small layers, much Python."""
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(128, 128), torch.nn.GELU())]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = torch.randn(32, 128)

    def run_once() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    for _ in range(20):
        run_once()
    started = time.perf_counter()
    for _ in range(20):
        run_once()
    count = max(1, round(milliseconds / 1000 / ((time.perf_counter() - started) / 20)))

    def run_step() -> None:
        for _ in range(count):
            run_once()

    return run_step


def measure(
    step: Callable[[], None], tracker: Tracker, folder: Path, *, num_steps: int, log_every: int
) -> Outcome:
    journal = Journal(folder)
    seconds = []
    process, thread, wall = time.process_time(), time.thread_time(), time.perf_counter()
    for number in range(1, num_steps + 1):
        started = time.perf_counter()
        step()
        if number % log_every == 0:
            row = {f"loss/{index}": number / (index + 1) for index in range(NUM_METRICS)}
            journal.append("metrics", {"step": number, "num_steps": num_steps, **row})
        seconds.append(time.perf_counter() - started)
    others = (time.process_time() - process) - (time.thread_time() - thread)
    # Batches go by the clock, so on a busy machine processor time of the steps would be no measure.
    share = 100 * max(0.0, others) / (time.perf_counter() - wall)
    started = time.perf_counter()
    tracker.finish("FINISHED")
    ended = time.perf_counter() - started
    return Outcome(statistics.median(seconds), share, ended, tracker.num_failed_calls)


def measure_case(
    case: str, server: Server, folder: Path, step: Callable[[], None], *, num_steps: int, every: int
) -> Outcome:
    """One case on a run of its own; the server is healthy before and after."""
    folder.mkdir(parents=True)
    if case == "no tracking":
        return measure(step, NullTracker(), folder, num_steps=num_steps, log_every=every)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from lssl_ray.tracking.mlflow import MlflowTracker

    server.start()
    tracker = MlflowTracker(
        server.address, experiment="bench", run_name=folder.name, run_folder=folder, params={},
        tags={},
    )  # fmt: skip
    tracker.flush()
    if case == "answers nothing":
        server.signal(signal.SIGSTOP)
    elif case == "down":
        server.stop()
    try:
        return measure(step, tracker, folder, num_steps=num_steps, log_every=every)
    finally:
        if case == "answers nothing":
            server.signal(signal.SIGCONT)


def main(
    step_ms: Annotated[float, typer.Option(help="Length of a step.")] = 100.0,
    steps: Annotated[int, typer.Option(help="Steps per pass.")] = 300,
    log_every: Annotated[int, typer.Option(help="Steps per row, run.log_every.")] = 10,
    repeats: Annotated[int, typer.Option(help="Passes of each case, in turn.")] = 3,
) -> None:
    torch.set_num_threads(1)
    step = build_step(step_ms)
    outcomes: dict[str, list[Outcome]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as place:
        server = Server(Path(place))
        try:
            for repeat in range(repeats):
                for case in CASES:
                    folder = Path(place) / "runs" / f"{case.replace(' ', '-')}-{repeat}"
                    outcomes[case].append(
                        measure_case(case, server, folder, step, num_steps=steps, every=log_every)
                    )
        finally:
            server.stop()
    console = Console()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    table = Table(
        title=f"{repeats} x {steps} steps, a row of {NUM_METRICS} metrics per {log_every}; "
        f"{os.cpu_count()} cores, load {load}"
    )
    for name in ("server", "step, ms", "over none", "tracking, % of the steps", "end, s", "failed"):
        table.add_column(name, justify="left" if name == "server" else "right")
    base = statistics.median(outcome.step_seconds for outcome in outcomes[CASES[0]])
    for case, values in outcomes.items():
        median = statistics.median(value.step_seconds for value in values)
        share = statistics.median(value.tracking_percent for value in values)
        table.add_row(
            case, f"{1000 * median:.1f}", f"{100 * (median / base - 1):+.1f} %", f"{share:.2f}",
            f"{max(value.close_seconds for value in values):.1f}",
            str(sum(value.failed for value in values)),
        )  # fmt: skip
    console.print(table)
    console.print(f"target: below {TARGET_PERCENT:.0f} % of the steps in each case")


if __name__ == "__main__":
    typer.run(main)
