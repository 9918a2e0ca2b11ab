"""Who may write a run's place in a store: one process, the last that claimed it.

Stores have no locks that all of them know. So whoever starts or resumes a run leaves its name
there, and everybody looks before they write: a process that is not named any more stops.
"""

import json
import socket
import tempfile
import time
import uuid
from pathlib import Path

from lssl_ray.errors import CheckpointError
from lssl_ray.storage.store import RunStore
from lssl_ray.tracking.journal import METRICS_FILE
from lssl_ray.training.checkpoint import CHECKPOINTS_FOLDER
from lssl_ray.whole_files import write_whole

CONFIG_FILE = "run_config.yaml"
SESSION_FILE = "session.json"  # in the store: who writes
LOCAL_SESSION_FILE = "storage.json"  # in the run folder: as whom it wrote


def require_free(store: RunStore, *, overwrite: bool) -> None:
    """Make room for a new run of this name.

    A run there that never trained a step is taken for nothing.

    Raises:
        CheckpointError: There is a run, or something else.
    """
    files = store.list_files()
    if not files:
        return
    if CONFIG_FILE not in files:
        raise CheckpointError(
            f"{store.uri} is not empty and holds no {CONFIG_FILE}, so it is no run of ours and is "
            "not overwritten; choose another --run-name."
        )
    trained = files.get(METRICS_FILE, 0) or any(
        name.startswith(f"{CHECKPOINTS_FOLDER}/") for name in files
    )
    if trained and not overwrite:
        raise CheckpointError(
            f"{store.uri} holds a run already. Go on with it: --resume {store.uri}; start another: "
            "--run-name OTHER; throw it away: --overwrite."
        )


def claim(store: RunStore, run_folder: Path) -> None:
    """Become the one process that writes there; who wrote before stops at its next checkpoint.

    Raises:
        CheckpointError: The store can't be written.
    """
    session = {
        "session": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "unix_seconds": round(time.time(), 3),
    }
    with tempfile.TemporaryDirectory(prefix="lssl_ray-") as folder:
        path = Path(folder, SESSION_FILE)
        path.write_text(json.dumps(session))
        store.put(path, SESSION_FILE)
    own = {"uri": store.uri, **session}
    write_whole(run_folder / LOCAL_SESSION_FILE, json.dumps(own))


def require_claim(store: RunStore, run_folder: Path) -> None:
    """Refuse to write once another process does.

    Raises:
        CheckpointError: It does, or the store can't be asked.
    """
    theirs = read_session(store)
    if not is_own(theirs, run_folder):
        raise CheckpointError(
            f"{store.uri} is written by another process now (on {theirs.get('host', 'no host')!r}, "
            f"session {theirs.get('session', 'none')}), so this one stops. Two runs need two names "
            "(--run-name); to go on here, end the other one and resume."
        )


def read_session(store: RunStore) -> dict[str, str]:
    """Who writes there; nobody in a store that holds no run.

    Raises:
        CheckpointError: The store can't be asked.
    """
    try:
        session: dict[str, str] = json.loads(store.read(SESSION_FILE) or b"{}")
    except ValueError as error:
        raise CheckpointError(
            f"{store.uri}/{SESSION_FILE} can't be read: {error}. Delete it once nothing writes "
            "there any more."
        ) from error
    return session


def is_own(session: dict[str, str], run_folder: Path) -> bool:
    """Whether a run folder is the one that wrote last."""
    path = run_folder / LOCAL_SESSION_FILE
    if not path.is_file():
        return False
    own: str = json.loads(path.read_text()).get("session", "")
    return bool(own) and own == session.get("session")
