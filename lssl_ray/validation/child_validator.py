"""A validator without Ray: one child process that lives as long as its session."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from lssl_ray.validation.validator import ValidatorEndedError, Verdict, read_reply

CHILD_MODULE = "lssl_ray.validation.child"


class ChildValidator:
    """Starts the child when made; a fresh interpreter, because a fork of a trainer is not safe.

    Made, used and closed by one thread that outlives it: Linux ends a child with the thread that
    started it.

    Args:
        run_folder: Of the run whose checkpoints are evaluated.
    """

    def __init__(self, run_folder: Path) -> None:
        folders = [os.getcwd() if folder == "" else folder for folder in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", CHILD_MODULE, str(run_folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(folders),
                "PYTHONSAFEPATH": "1",
                "OMP_NUM_THREADS": "1",
            },
        )

    def evaluate(self, checkpoint: Path) -> Verdict:
        """Ask the child, and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"checkpoint": str(checkpoint)}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            status = self._process.wait()
            raise ValidatorEndedError(f"the evaluating process ended with status {status}")
        return read_reply(json.loads(line))

    def interrupt(self) -> None:
        """Kill the child: whoever waits for its answer is told that it ended."""
        self._process.kill()

    def close(self) -> None:
        """Kill and reap."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of a request that was never read
                pipe.close()
