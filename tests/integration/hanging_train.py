"""`lssl-ray train` whose step stands still: `python hanging_train.py STEP train --config ...`.

For the test of a run in one process. The function hangs as a deadlocked library would: in Python,
for ever.
"""

import sys
import threading

from lssl_ray import cli
from lssl_ray.training import loop


def hang_in_step(step: int) -> None:
    """Make the step after so many never end."""
    run_step = loop.run_step

    def step_or_hang(*arguments: object, **options: object) -> object:
        if options["step"] == step:
            threading.Event().wait()
        return run_step(*arguments, **options)  # type: ignore[arg-type]

    loop.run_step = step_or_hang  # type: ignore[assignment]


if __name__ == "__main__":
    hang_in_step(int(sys.argv.pop(1)))
    cli.main()
