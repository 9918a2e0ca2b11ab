"""Run folders as small as they come, for tests of what is kept of them."""

import hashlib
import json
from pathlib import Path


def write_checkpoint_folder(folder: Path, content: str) -> Path:
    """A whole checkpoint by its own index; its weights are text."""
    folder.mkdir(parents=True)
    files = {"teacher.safetensors": f"teacher {content}", "student.safetensors": content * 9}
    files |= {"progress.json": "{}", "run_config.yaml": "{}"}
    index = {}
    for name, text in files.items():
        (folder / name).write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        index[name] = {"bytes": len(text), "sha256": digest}
    (folder / "rng_rank_0.safetensors").write_text("state")
    (folder / "checkpoint.json").write_text(json.dumps({"version": 2, "files": index}))
    return folder


def write_run(folder: Path, *, rows: int, checkpoint: int | None = None) -> Path:
    """A run folder with a configuration, rows, a concept space, maybe a checkpoint."""
    for name in ("artifacts", "tracking", "logs"):
        (folder / name).mkdir(parents=True)
    (folder / "run_config.yaml").write_text("run: {}\n")
    (folder / "artifacts" / "concept_space.safetensors").write_text("space")
    (folder / "logs" / "run.log").write_text("said")
    write_rows(folder, rows)
    if checkpoint is not None:
        write_checkpoint_folder(folder / "checkpoints" / f"step_{checkpoint:08d}", "own")
    return folder


def write_rows(folder: Path, count: int) -> None:
    """Rows of so many steps."""
    lines = (json.dumps({"step": step}) + "\n" for step in range(1, count + 1))
    (folder / "metrics.jsonl").write_text("".join(lines))


def count_rows(folder: Path) -> int:
    """Rows that are there."""
    return len((folder / "metrics.jsonl").read_text().splitlines())
