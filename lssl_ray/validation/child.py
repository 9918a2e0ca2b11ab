"""The child process that evaluates checkpoints for `child_validator`; never imported by it.

Requests are JSON lines on stdin, replies JSON lines on the original stdout; what libraries say goes
to stderr, which is the run's log. It holds no state that matters and may be killed at any moment.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> int:
    """Answer until the parent closes stdin; arguments: run folder, the parent's process id."""
    run_folder, parent_process_id = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":  # end of stdin ends an idle child, this one that computes
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_process_id:  # it died before the line above
        return 1
    # Takes seconds, in which a parent may die.
    from lssl_ray.validation.serving import EvaluationServer

    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = EvaluationServer(run_folder)
    for line in sys.stdin:
        reply = server.evaluate(json.loads(line)["checkpoint"])
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
