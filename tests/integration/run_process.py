"""One `lssl-ray train` as a user starts it, in a process group of its own."""

import sys
from collections.abc import Mapping
from pathlib import Path

from started_process import StartedProcess


class RunProcess(StartedProcess):
    """A started run; as a context manager it ends what is left of itself.

    Args:
        workplace: Where it runs, and its output is kept.
        arguments: Of `lssl-ray train`.
        environment: Its variables; None for those of the tests.
        wrapper: A command that starts it.
    """

    def __init__(
        self,
        workplace: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        command = [*wrapper, sys.executable, "-m", "lssl_ray.cli", "train", *arguments]
        super().__init__(workplace, command, environment=environment)
