"""Rules about machines: each lets good ones pass, and names the one that breaks it."""

import pytest
from doctor_samples import GOOD, VERSIONS, build_facts

from lssl_ray.doctor.machines import (
    judge_code,
    judge_cores,
    judge_memory,
    judge_open_files,
    judge_shared_memory,
    judge_temp,
    judge_versions,
)


def test_versions_that_are_the_same_everywhere_pass() -> None:
    finding = judge_versions(GOOD, {"one": GOOD, "two": GOOD})
    assert finding.status == "ok"
    assert all(version in finding.found for version in VERSIONS.values())


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("python", "3.10.14", "problem"),
        ("python", "3.11.2", "ok"),
        ("ray", "2.60.1", "problem"),
        ("torch", "2.12.0", "warning"),
        ("numpy", "not installed", "warning"),
    ],
)
def test_versions_that_differ_are_named_by_how_much_they_matter(
    package: str, version: str, status: str
) -> None:
    other = build_facts(versions={**VERSIONS, package: version})
    finding = judge_versions(GOOD, {"same": GOOD, "other": other})
    assert finding.status == status
    if status != "ok":
        assert f"other has {package} {version}" in finding.found
        assert "same has" not in finding.found


def test_versions_package_that_a_node_does_not_tell_of_is_a_difference() -> None:
    silent = build_facts(versions={"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0"})
    assert judge_versions(GOOD, {"one": silent}).status == "warning"


def test_code_of_another_state_is_named() -> None:
    assert judge_code(GOOD, {"one": GOOD}).status == "ok"
    finding = judge_code(GOOD, {"one": GOOD, "stale": build_facts(code_digest="01d")})
    assert (finding.status, "stale" in finding.found, "one" in finding.found) == (
        "warning",
        True,
        False,
    )


def test_open_files_below_what_ray_wants_are_named() -> None:
    assert judge_open_files({"one": build_facts(open_files=4096)}).status == "ok"
    finding = judge_open_files({"one": GOOD, "tight": build_facts(open_files=4095)})
    assert finding.status == "warning"
    assert "tight: 4095" in finding.found
    assert "65536" in str(finding.remedy)


@pytest.mark.parametrize(
    ("free_mib", "used_share", "status"),
    [(50000.0, 0.95, "ok"), (50000.0, 0.951, "warning"), (1023.0, 0.2, "problem")],
)
def test_temporary_files_need_room_and_a_disk_that_is_not_full(
    free_mib: float, used_share: float, status: str
) -> None:
    full = build_facts(temp_free_mib=free_mib, temp_used_share=used_share)
    finding = judge_temp({"one": GOOD, "full": full})
    assert finding.status == status
    assert ("full:" in finding.found) == (status != "ok")


@pytest.mark.parametrize(
    ("shm_mib", "status"), [(2000.0, "ok"), (64.0, "warning"), (None, "warning")]
)
def test_shared_memory_must_hold_the_object_store(shm_mib: float | None, status: str) -> None:
    machines = {"one": GOOD, "container": build_facts(shm_mib=shm_mib)}
    finding = judge_shared_memory(machines, store_mib={"one": 2000.0, "container": 2000.0})
    assert finding.status == status
    assert ("container:" in finding.found) == (status == "warning")
    assert "one:" not in finding.found


def test_cores_fewer_than_wanted_are_a_warning() -> None:
    assert judge_cores(GOOD, num_wanted=8).status == "ok"
    assert judge_cores(GOOD, num_wanted=9).status == "warning"


@pytest.mark.parametrize(
    ("decoders_mib", "workers_mib", "status"),
    [
        (20000.0, 10000.0, "ok"),
        (20001.0, 10000.0, "warning"),  # more than is available
        (0.0, 32001.0, "problem"),  # more than there is
    ],
)
def test_memory_wanted_is_compared_with_what_is_there(
    decoders_mib: float, workers_mib: float, status: str
) -> None:
    finding = judge_memory(GOOD, decoders_mib=decoders_mib, workers_mib=workers_mib)
    assert finding.status == status
    assert (finding.remedy is None) == (status == "ok")
