"""A child process as its parent sees it: pipes, a memory file for frames, starting and killing.

It is a fresh interpreter, not a fork: forking a process with threads or CUDA is not safe. Linux
only (memory files, parent-death signal). Deadlines, reasons and replacement are `isolation`'s; the
other end of the pipes is `decode_child`.
"""

import contextlib
import json
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from lssl_ray.video.cuts import lay_out

__all__ = ["ChildEndedError", "ChildProcess"]

REAP_SECONDS = 5.0
KEPT_NOISE_BYTES = 2048
_LONGEST_POLL_MS = 2**31 - 1  # C's int


class ChildEndedError(Exception):
    """The child closed its reply pipe."""


class ChildProcess:
    """One running child: its pipes, its memory file, the last of its noise."""

    def __init__(self, module: str, memory_limit_mib: int) -> None:
        """Starts `python -m module`, without waiting until it is ready.

        Args:
            module: A module that calls `decode_child.serve`.
            memory_limit_mib: Memory the child may take beyond its start; 0 for no limit.
        """
        self._owner_process_id = os.getpid()
        self._noise = b""
        self._map: mmap.mmap | None = None
        self.num_requests = 0
        self._memory_file = os.memfd_create("lssl_ray_frames", os.MFD_CLOEXEC)
        arguments = [str(self._memory_file), str(os.getpid()), str(memory_limit_mib)]
        try:
            self._process = _spawner().submit(self._start, [module, *arguments]).result()
        except BaseException:
            os.close(self._memory_file)
            raise
        assert self._process.stdout is not None and self._process.stderr is not None
        self._replies = self._process.stdout.fileno()
        self._errors = self._process.stderr.fileno()
        self._poll = select.poll()
        self._poll.register(self._replies, select.POLLIN)
        self._poll.register(self._errors, select.POLLIN)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=[self._memory_file],
            env=_child_environment(),
        )

    @property
    def alive(self) -> bool:
        """Whether it runs and belongs to this process (not to the one this was forked from)."""
        return self._owner_process_id == os.getpid() and self._process.poll() is None

    def send(self, request: dict[str, Any]) -> None:
        """Writes one request.

        Raises:
            BrokenPipeError: The child has ended.
        """
        assert self._process.stdin is not None
        self._read_noise()
        self._noise = b""  # of a file before: it must not be taken for what is wrong with this one
        data = json.dumps(request).encode() + b"\n"
        while data:
            data = data[os.write(self._process.stdin.fileno(), data) :]

    def receive(self, deadline: float) -> dict[str, Any]:
        """Waits for a reply until a `time.monotonic()` moment.

        Raises:
            TimeoutError: The moment passed; a late reply may still come, so stop the child.
            ChildEndedError: The child has ended.
        """
        reply = b""
        while not reply.endswith(b"\n"):
            remaining = deadline - time.monotonic()
            if remaining <= 0.0:
                raise TimeoutError
            wait_ms = min(math.ceil(remaining * 1000.0), _LONGEST_POLL_MS)
            for descriptor, _ in self._poll.poll(wait_ms):
                data = os.read(descriptor, 1 << 16)
                if descriptor == self._errors:
                    self._noise = (self._noise + data)[-KEPT_NOISE_BYTES:]
                    if not data:
                        self._poll.unregister(self._errors)
                elif not data:
                    raise ChildEndedError
                else:
                    reply += data
        parsed: dict[str, Any] = json.loads(reply)
        return parsed

    def pictures(self, shapes: Sequence[Sequence[int]]) -> list[npt.NDArray[np.uint8]]:
        """Views of these shapes on the memory shared with the child."""
        num_bytes = sum(math.prod(shape) for shape in shapes)
        if self._map is None or num_bytes > len(self._map):
            size = os.fstat(self._memory_file).st_size
            self._map = mmap.mmap(self._memory_file, size)
        return lay_out(self._map, shapes)

    def _read_noise(self) -> None:
        """What it has written to stderr and nobody has read yet."""
        while select.select([self._errors], [], [], 0)[0]:
            data = os.read(self._errors, 1 << 16)
            if not data:
                break
            self._noise = (self._noise + data)[-KEPT_NOISE_BYTES:]

    def last_words(self) -> str:
        """How an ended child ended: a signal's name or a status, and its last line of noise."""
        try:
            status = self._process.wait(timeout=REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its pipes without ending"
        if status < 0:
            ending = signal.Signals(-status).name
            if -status == signal.SIGKILL:
                ending += ", perhaps by the kernel's out-of-memory killer"
        else:
            ending = f"exit status {status}"
        self._read_noise()
        lines = self._noise.decode(errors="replace").strip().splitlines()
        return f"{ending}: {lines[-1].strip()[:160]}" if lines else ending

    def stop(self) -> None:
        """Kills and reaps; does nothing in a forked copy of the owner."""
        if self._owner_process_id != os.getpid():
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        os.close(self._memory_file)
        # Stuck in the kernel (a dead network disk)? Then `subprocess` reaps it later.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=REAP_SECONDS)


_spawners: dict[int, ThreadPoolExecutor] = {}


def _spawner() -> ThreadPoolExecutor:
    """The thread that starts children; it lives as long as this process.

    Linux sends a child its parent-death signal when the *thread* that started it ends, which would
    kill the child of a pool thread that is gone while another thread uses it.
    """
    process_id = os.getpid()
    if process_id not in _spawners:  # first use, or a fork, which leaves threads behind
        _spawners.clear()
        _spawners[process_id] = ThreadPoolExecutor(1, thread_name_prefix="lssl_ray_spawner")
    return _spawners[process_id]


def _child_environment() -> dict[str, str]:
    """The parent's environment and import path; one thread per native library."""
    folders = [os.getcwd() if folder == "" else folder for folder in sys.path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        "PYTHONSAFEPATH": "1",  # a file named json.py in the working folder must not be imported
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
