"""The stall watch on real hangs, each in a process of its own: it is the process that must end."""

import subprocess
import sys
import textwrap
from pathlib import Path

import lss_parts
import pytest

from lssl_ray.model.clip import ClipModel
from lssl_ray.training.loop import run_loop
from lssl_ray.training.optimizer import build_optimizer
from lssl_ray.training.stalling import (
    CHECKPOINT,
    DATA,
    OTHERS,
    STEP,
    keep_dump,
    read_dump,
    watching_run,
)
from lssl_ray.types import Progress

# Far below what a test may take, far above what a loaded machine makes of a short phase.
LIMIT_SECONDS = 2.0
END_SECONDS = 60

HANGS = """
    import ctypes, signal, sys, threading, time
    from pathlib import Path
    from lssl_ray.training.stalling import DATA, STEP, watching_for_stalls, watching_run

    def hang_in_python():
        threading.Event().wait()

    def hang_with_the_lock():
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the GIL: no other thread runs

    path = Path(sys.argv[1])
"""


def run_child(code: str, path: Path) -> "subprocess.CompletedProcess[str]":
    """Run code after `HANGS`; it has a minute to end by itself."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HANGS) + textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=END_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("hang", ["hang_in_python", "hang_with_the_lock"])
def test_hanging_step_is_dumped_and_ends_the_process(tmp_path: Path, hang: str) -> None:
    path = tmp_path / "watch_rank3.txt"
    child = run_child(
        f"""
        with watching_for_stalls(path, seconds={LIMIT_SECONDS}, rank=3) as on_phase:
            on_phase(DATA, step=6)
            on_phase(STEP, step=6)
            {hang}()
        """,
        path,
    )
    assert child.returncode == 1, child.stderr
    dump = read_dump(path)
    assert dump is not None
    head, _, stacks = dump.partition("\n")
    assert head.startswith("Rank 3 ") and STEP in head and "step 6" in head
    assert hang in stacks and DATA not in head


def test_process_that_can_be_told_leaves_in_good_order_after_saying_where_the_dump_is(
    tmp_path: Path,
) -> None:
    child = run_child(
        f"""
        def leave(signum, frame):
            raise SystemExit(99)

        signal.signal(signal.SIGTERM, leave)
        try:
            with watching_run(path, seconds={LIMIT_SECONDS}) as on_phase:
                on_phase(DATA, step=4)
                hang_in_python()
        finally:
            print("left in good order")
        """,
        tmp_path,
    )
    assert child.returncode == 99 and "left in good order" in child.stdout
    (dump,) = (tmp_path / "logs").iterdir()
    assert dump.name.startswith("stall_rank0_") and str(dump) in child.stderr
    assert "--resume" in child.stderr and DATA in child.stderr
    assert "hang_in_python" in dump.read_text()


@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("hang_with_the_lock()", id="it holds the lock"),
        pytest.param("signal.signal(15, signal.SIG_IGN); hang_in_python()", id="it is deaf"),
    ],
)
def test_process_that_can_not_be_told_is_ended_all_the_same(tmp_path: Path, hang: str) -> None:
    child = run_child(
        f"""
        with watching_run(path, seconds={LIMIT_SECONDS}) as on_phase:
            on_phase(STEP, step=0)
            {hang}
        """,
        tmp_path,
    )
    assert child.returncode == 1, child.stderr
    (dump,) = (tmp_path / "logs").iterdir()
    assert "hang_" in dump.read_text() and STEP in dump.read_text()


def test_process_that_hangs_while_it_leaves_is_ended_all_the_same(tmp_path: Path) -> None:
    child = run_child(
        f"""
        def leave(signum, frame):
            raise SystemExit(99)

        signal.signal(signal.SIGTERM, leave)
        try:
            with watching_run(path, seconds={LIMIT_SECONDS}) as on_phase:
                hang_in_python()
        finally:
            print("leaving", flush=True)
            hang_with_the_lock()
        """,
        tmp_path,
    )
    assert child.returncode == 1 and "leaving" in child.stdout


def test_phases_each_below_the_limit_go_on_for_any_time(tmp_path: Path) -> None:
    path = tmp_path / "watch_rank0.txt"
    child = run_child(
        f"""
        with watching_for_stalls(path, seconds={LIMIT_SECONDS}, rank=0) as on_phase:
            began, step = time.monotonic(), 0
            while time.monotonic() - began < {2.5 * LIMIT_SECONDS}:
                on_phase(STEP, step=step)
                time.sleep({0.1 * LIMIT_SECONDS})
                step += 1
            print(path.read_text().rstrip())
        time.sleep({1.5 * LIMIT_SECONDS})  # nobody watches any more
        print("done", step)
        """,
        path,
    )
    assert child.returncode == 0, child.stderr
    said, done = child.stdout.strip().splitlines()[0], child.stdout.strip().splitlines()[-1]
    steps = int(done.removeprefix("done "))
    assert said.endswith(f"after step {steps - 1}.") and not path.exists()


def test_dump_of_an_earlier_session_is_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "watch_rank0.txt"
    path.parent.mkdir()
    path.write_bytes(b"Rank 0 has been in a step.".ljust(511) + b"\nThread 1:\n  the culprit\n")
    with watching_run(tmp_path, seconds=600.0):
        assert read_dump(path) is None  # the new session's own, and it did not stall
    (kept,) = path.parent.iterdir()
    assert kept.name.startswith("stall_rank0_") and "the culprit" in kept.read_text()


def test_file_without_stacks_is_no_dump(tmp_path: Path) -> None:
    path = tmp_path / "watch_rank0.txt"
    assert read_dump(path) is None and keep_dump(path) is None
    path.write_bytes(b"Rank 0 has been in a step.".ljust(511) + b"\n")  # then killed by others
    assert read_dump(path) is None and keep_dump(path) is None and path.exists()


def test_limit_of_zero_watches_nothing(tmp_path: Path) -> None:
    with watching_run(tmp_path, seconds=0.0) as on_phase:
        on_phase(STEP, step=0)
        assert list(tmp_path.iterdir()) == []


def test_error_inside_leaves_no_file_and_no_clock(tmp_path: Path) -> None:
    path = tmp_path / "watch_rank0.txt"
    child = run_child(
        f"""
        try:
            with watching_for_stalls(path, seconds={LIMIT_SECONDS}, rank=0):
                raise OSError("of another kind")
        except OSError:
            time.sleep({1.5 * LIMIT_SECONDS})
            print("alive")
        """,
        path,
    )
    assert (child.returncode, child.stdout.strip()) == (0, "alive") and not path.exists()


def test_loop_tells_every_phase_of_every_step(tmp_path: Path, tiny_clip: ClipModel) -> None:
    told: list[tuple[str, int]] = []
    task = lss_parts.build_task(tiny_clip)
    run_loop(
        task,
        build_optimizer(task.student, head=None, betas=(0.9, 0.999)),
        lss_parts.build_schedules(4),
        [lss_parts.draw_batch(2, seed=step, first_position=2 * step) for step in range(4)],
        progress=Progress(),
        settings=lss_parts.build_settings(4, clips_per_step=2, checkpoint_every=2),
        context=lss_parts.build_context(tmp_path, lss_parts.Rows()),
        on_phase=lambda phase, *, step: told.append((phase, step)),
    )
    steps = [[(DATA, step), (OTHERS, step), (STEP, step)] for step in range(4)]
    saves = [(CHECKPOINT, 2)], [(CHECKPOINT, 4)]
    assert told == [*steps[0], *steps[1], *saves[0], *steps[2], *steps[3], *saves[1]]
