"""One sweep as a process of its own, with any metric to choose by.

Run as a program it is that process: a request as JSON, and what `--resume` and `--max-concurrent`
would get.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from started_process import StartedProcess


class SweepProcess(StartedProcess):
    """A started sweep; as a context manager it ends what is left of itself."""

    def __init__(
        self,
        workplace: Path,
        *,
        request: dict[str, Any] | None = None,
        resume: str | None = None,
        max_concurrent: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        arguments = [json.dumps(part) for part in (request, resume, max_concurrent)]
        command = [sys.executable, __file__, *arguments]
        super().__init__(workplace, command, environment=environment)


def main() -> None:
    """Run a sweep."""
    from lssl_ray.display import open_display
    from lssl_ray.sweeping.job import sweep
    from lssl_ray.sweeping.request import SweepRequest

    request, resume, max_concurrent = (json.loads(text) for text in sys.argv[1:])
    with open_display() as display:
        if request is not None:
            paths = {key: Path(request[key]) for key in ("space", "config")}
            request = SweepRequest(**(request | paths))
        sweep(request, resume=resume, max_concurrent=max_concurrent, display=display)


if __name__ == "__main__":
    main()
