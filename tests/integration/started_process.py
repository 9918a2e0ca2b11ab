"""A program of ours in a process group of its own, watched from outside and ended with its test."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

WAIT_SECONDS = 900  # an idle machine takes a small part of it
Self = TypeVar("Self", bound="StartedProcess")


class StartedProcess:
    """A started program; as a context manager it ends what is left of itself.

    Args:
        workplace: Where it runs, and its output is kept.
        command: It and its arguments.
        environment: Its variables; None for those of the tests.
    """

    def __init__(
        self,
        workplace: Path,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.output = workplace / f"output-{time.monotonic_ns()}.txt"
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=workplace,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**(os.environ if environment is None else environment), **quiet},
                start_new_session=True,
            )

    def __enter__(self: Self) -> Self:
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
        # It first: it would start another of what is taken from it.
        for process in self.find():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def find(self, *words: str) -> list[psutil.Process]:
        """Its living processes whose command line holds all words; itself, too."""
        if self.process.poll() is not None:
            return []
        own = psutil.Process(self.process.pid)
        found = []
        for process in [own, *own.children(recursive=True)]:
            try:
                line = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if all(word in line for word in words):
                found.append(process)
        return found

    def find_descendants(self, name: str) -> list[psutil.Process]:
        """Living processes below this one whose command line holds a name."""
        return [process for process in self.find(name) if process.pid != self.process.pid]

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = WAIT_SECONDS) -> None:
        """Poll until something is so; a program that ends before fails the test."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def wait(self, *, seconds: float = WAIT_SECONDS) -> str:
        """Wait for a good end; the output."""
        code = self.process.wait(seconds)
        text = self.output.read_text()
        assert code == 0, text
        return text

    def wait_for_end(self, processes: list[psutil.Process]) -> None:
        """Wait until what was killed is gone; Ray's small agents take their time."""
        workers = []
        for process in processes:
            try:
                if "Agent" not in process.name():
                    workers.append(process)
            except psutil.NoSuchProcess:
                continue
        assert psutil.wait_procs(workers, timeout=60)[1] == []
