"""One `lssl-ray train` as a user starts it, in a process group of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

WAIT_SECONDS = 300


class RunProcess:
    """A started run; as a context manager it ends what is left of itself."""

    def __init__(self, workplace: Path, *arguments: str) -> None:
        self.output = workplace / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lssl_ray.cli", "train", *arguments],
                cwd=workplace,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"},
                start_new_session=True,
            )

    def __enter__(self) -> "RunProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything that is left of it."""
        leftover = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        leftover += leftover[0].children(recursive=True) if leftover else []
        for process in leftover:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def wait(self) -> str:
        """Wait for a good end; the output."""
        code = self.process.wait(WAIT_SECONDS)
        text = self.output.read_text()
        assert code == 0, text
        return text

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Poll until something is so; a run that ends before fails the test."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def find_descendants(self, name: str) -> list[psutil.Process]:
        """Living processes below this one whose command line holds a name."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if name in " ".join(child.cmdline()):
                    found.append(child)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def wait_for_end(self, processes: list[psutil.Process]) -> None:
        """Wait until the processes of a killed run are gone; Ray's small agents take their time."""
        workers = []
        for process in processes:
            try:
                if "Agent" not in process.name():
                    workers.append(process)
            except psutil.NoSuchProcess:
                continue
        assert psutil.wait_procs(workers, timeout=60)[1] == []
