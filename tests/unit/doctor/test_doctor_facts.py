"""What a machine says of itself, against what Python and the system say."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from pathlib import Path

import psutil
import pytest

import lssl_ray
from lssl_ray.doctor import facts as doctor_facts
from lssl_ray.doctor.facts import (
    NOT_INSTALLED,
    NodeFacts,
    Question,
    collect_facts,
    digest_code,
    digest_file,
    find_versions,
    read_memory,
)


def test_facts_of_this_machine_agree_with_the_system(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    before = time.time()
    facts = collect_facts(
        Question(
            folders={"run.folder": str(tmp_path)},
            files={"w": str(tmp_path / "weights"), "none": str(tmp_path / "none")},
        )
    )
    assert before <= facts.started <= facts.answered <= time.time()
    assert facts.num_cores == len(os.sched_getaffinity(0))
    assert facts.gpus is None
    assert facts.folders["run.folder"].error is None
    assert facts.digests == {"w": hashlib.sha256(b"abc").hexdigest(), "none": None}
    disk = shutil.disk_usage("/dev/shm")
    assert facts.shm_mib == pytest.approx(disk.total / 2**20)


def test_facts_survive_the_way_to_another_node() -> None:
    facts = collect_facts(Question(folders={"run.folder": "/nowhere"}))
    again = NodeFacts.from_plain(json.loads(json.dumps(facts.to_plain())))
    assert again == facts


def test_facts_of_another_release_are_told_from_ours() -> None:
    plain = collect_facts(Question()).to_plain()
    with pytest.raises(TypeError):
        NodeFacts.from_plain({**plain, "colour": "red"})


def test_versions_are_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = find_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["lssl_ray"] == lssl_ray.__version__
    # What comes first on the path is what is imported.
    (tmp_path / "numpy-0.0.1.dist-info").mkdir()
    (tmp_path / "numpy-0.0.1.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor_facts, "PACKAGES", ("numpy", "no-such-package"))
    assert find_versions()["numpy"] == "0.0.1"
    assert find_versions()["no-such-package"] == NOT_INSTALLED


def test_code_digest_changes_with_any_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "lssl_ray"
    copy.mkdir()
    (copy / "__init__.py").write_text("")
    (copy / "part.py").write_text("x = 1\n")
    monkeypatch.setattr(lssl_ray, "__file__", str(copy / "__init__.py"))
    first = digest_code()
    (copy / "part.pyc").write_text("not a module")
    assert digest_code() == first
    (copy / "part.py").write_text("x = 2\n")
    second = digest_code()
    (copy / "part.py").rename(copy / "other.py")
    assert len({first, second, digest_code()}) == 3


def test_file_digest_of_more_than_a_chunk_is_of_all_of_it(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 17)
    (tmp_path / "f").write_bytes(content)
    assert digest_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_memory_is_the_machine_s_or_the_container_s() -> None:
    total, available = read_memory()
    assert 0 < available <= total <= psutil.virtual_memory().total
