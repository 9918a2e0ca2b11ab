"""A run in one process whose step never ends: it is ended, says where it stood, and goes on."""

import sys
from pathlib import Path

import pytest
import tiny
import yaml
from run_checks import check_same_training
from run_process import RunProcess
from started_process import StartedProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

NUM_STEPS, HANG_AFTER, CHECKPOINT_EVERY = 8, 5, 2
# Many times what a tiny step or checkpoint takes on a loaded machine.
STALL_SECONDS = 15.0


@pytest.fixture
def workplace(tmp_path: Path, tiny_clip_dir: Path, videos: tiny.VideoSet) -> Path:
    values = tiny.build_recipe_values(tiny_clip_dir, videos, run_folder=tmp_path / "runs")
    values["run"] |= {"log_every": 1, "checkpoint_every": CHECKPOINT_EVERY}
    values["optim"] |= {"epochs": 100, "max_steps": NUM_STEPS}
    values["evaluation"] = {}
    values["health"] = {"stall_seconds": STALL_SECONDS}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def test_run_whose_step_never_ends_is_dumped_ended_and_resumed_to_the_same_weights(
    workplace: Path,
) -> None:
    arguments = ("--config", "recipe.yaml", "--local")
    with RunProcess(workplace, *arguments, "--run-name", "straight") as run:
        run.wait()
    script = Path(__file__).with_name("hanging_train.py")
    command = [sys.executable, str(script), str(HANG_AFTER), "train", *arguments]
    with StartedProcess(workplace, [*command, "--run-name", "hung"]) as run:
        code = run.process.wait(200)
        text = run.output.read_text()
    assert code == 128 + 15, text  # told to leave, it could
    folder = workplace / "runs" / "hung"
    (dump,) = (folder / "logs").glob("stall_*.txt")
    assert f"step {HANG_AFTER}" in dump.read_text() and "step_or_hang" in dump.read_text()
    assert dump.name in text and "--resume" in text
    assert not list((folder / "logs").glob("watch_*"))
    with RunProcess(workplace, "--resume", "hung", "--local") as run:
        run.wait()
    check_same_training(folder, workplace / "runs" / "straight", num_steps=NUM_STEPS)
