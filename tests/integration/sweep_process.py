"""One sweep as a process of its own, with any metric to choose by.

Run as a program it is that process: a request as JSON, and what `--resume` would get.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

WAIT_SECONDS = 300


class SweepProcess:
    """A started sweep; as a context manager it ends what is left of itself."""

    def __init__(
        self, workplace: Path, *, request: dict[str, Any] | None = None, resume: str | None = None
    ) -> None:
        self.output = workplace / f"output-{time.monotonic_ns()}.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(request), json.dumps(resume)],
                cwd=workplace,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"},
                start_new_session=True,
            )

    def __enter__(self) -> "SweepProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(self.find()):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def find(self, *words: str) -> list[psutil.Process]:
        """Its living processes whose command line holds all words; itself, too, without any."""
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

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Poll until something is so; a sweep that ends before fails the test."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def wait(self) -> str:
        """Wait for a good end; the output."""
        code = self.process.wait(WAIT_SECONDS)
        text = self.output.read_text()
        assert code == 0, text
        return text


def main() -> None:
    """Run a sweep."""
    from lssl_ray.display import open_display
    from lssl_ray.sweeping.job import sweep
    from lssl_ray.sweeping.request import SweepRequest

    request, resume = (json.loads(text) for text in sys.argv[1:])
    with open_display() as display:
        if request is not None:
            paths = {key: Path(request[key]) for key in ("space", "config")}
            request = SweepRequest(**(request | paths))
        sweep(request, resume=resume, max_concurrent=None, display=display)


if __name__ == "__main__":
    main()
