"""Rules about GPUs, and asking torch for them in a process that may fail."""

from pathlib import Path

import pytest
import torch

from lssl_ray.doctor.gpus import (
    GpuFacts,
    GpuNode,
    ask_gpus,
    judge_bf16,
    judge_gpus,
    judge_unused_gpus,
)

TWO = GpuFacts(names=("H200", "H200"), torch_cuda="12.6", driver_cuda="12.8", has_bf16=True)
BROKEN = GpuFacts(torch_cuda="13.0", driver_cuda="12.2", problem="the driver is too old")


def judge(num_least: int, num_most: int, *, can_grow: bool = False, **nodes: GpuNode) -> str:
    finding = judge_gpus(nodes, num_least=num_least, num_most=num_most, can_grow=can_grow)
    assert (finding.remedy is None) == (finding.status == "ok")
    return finding.status


@pytest.mark.parametrize(
    ("num_least", "num_most", "can_grow", "status"),
    [
        (2, 2, False, "ok"),
        (1, 4, False, "warning"),  # a range, and fewer than its most
        (3, 3, False, "problem"),
        (3, 3, True, "warning"),  # an autoscaler may start them
    ],
)
def test_gpus_are_compared_with_the_workers(
    num_least: int, num_most: int, can_grow: bool, status: str
) -> None:
    assert judge(num_least, num_most, can_grow=can_grow, one=GpuNode(2, TWO)) == status


def test_gpus_count_where_both_ray_and_torch_see_them() -> None:
    # Ray was told of one of the two.
    assert judge(2, 2, one=GpuNode(1, TWO), two=GpuNode(1, TWO)) == "ok"
    assert judge(3, 3, one=GpuNode(1, TWO), two=GpuNode(1, TWO)) == "problem"
    assert judge(2, 2, one=GpuNode(None, TWO)) == "ok"  # without Ray


def test_gpus_that_ray_counts_and_torch_does_not_see_are_a_problem() -> None:
    nodes = {"good": GpuNode(2, TWO), "bad": GpuNode(4, TWO)}
    finding = judge_gpus(nodes, num_least=1, num_most=1, can_grow=False)
    assert finding.status == "problem"
    assert "bad: Ray counts 4 GPUs, torch sees 2" in finding.found
    assert "good" not in finding.found


def test_gpus_behind_a_broken_driver_are_a_problem_with_both_versions() -> None:
    finding = judge_gpus({"old": GpuNode(1, BROKEN)}, num_least=1, num_most=1, can_grow=False)
    assert finding.status == "problem"
    for told in ("old", "too old", "13.0", "12.2"):
        assert told in finding.found


def test_gpus_of_a_node_that_ray_gives_no_gpu_work_don_t_matter() -> None:
    assert judge(2, 2, one=GpuNode(2, TWO), head=GpuNode(0, BROKEN)) == "ok"


def test_gpus_of_a_node_without_answer_don_t_count() -> None:
    assert judge(2, 2, silent=GpuNode(2, None)) == "problem"


def test_gpus_that_nobody_wants_are_a_warning_only_where_there_are_some() -> None:
    assert judge_unused_gpus({"one": GpuNode(None, None)}).status == "skipped"
    finding = judge_unused_gpus({"one": GpuNode(None, TWO)})
    assert (finding.status, "H200" in finding.found) == ("warning", True)


def test_bf16_wants_every_gpu_to_have_it() -> None:
    old = GpuFacts(names=("V100",), has_bf16=False)
    assert judge_bf16({"one": GpuNode(2, TWO)}).status == "ok"
    finding = judge_bf16({"one": GpuNode(2, TWO), "old": GpuNode(1, old)})
    assert (finding.status, "old" in finding.found) == ("warning", True)
    assert judge_bf16({"one": GpuNode(0, None)}).status == "skipped"


def test_ask_gpus_says_what_torch_says() -> None:
    facts = ask_gpus(seconds=600.0)
    assert len(facts.names) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)
    assert facts.torch_cuda == torch.version.cuda
    # Without a GPU torch refuses to start CUDA, and says why.
    assert (facts.problem is None) == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.abort()", "-6"),
        ("raise OSError('libcudnn is missing')", "libcudnn is missing"),
        ("import time; time.sleep(600)", "within 1 s"),
    ],
    ids=["crash", "no import", "hang"],
)
def test_ask_gpus_survives_a_process_that_fails(
    code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_child.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    seconds = 1.0 if "sleep" in code else 600.0
    facts = ask_gpus(module="failing_child", seconds=seconds)
    assert facts.names == ()
    assert told in str(facts.problem)


@pytest.mark.parametrize(("in_ray", "seen"), [(False, ["0"]), (True, ["unset"])])
def test_ask_gpus_sees_what_training_would_see(
    in_ray: bool, seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "telling_child.py").write_text(
        "import json, os\n"
        "print(json.dumps({'names': [os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')]}))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # the user's, of a machine with several
    assert ask_gpus(in_ray=in_ray, module="telling_child", seconds=600.0).names == seen
