"""What `ray job submit --working-dir .` sends, packed by Ray's own packer, and the entry points."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[3]
# docs/cluster.md states it; Ray refuses 512 MiB.
MOST_MIB = 4
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is committed, with what users leave in such a folder, packed."""
    folder = tmp_path_factory.mktemp("package")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, or no git: nobody says which files belong to it")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "repo" / name)
    for name in (
        ".git/config",
        ".venv/bin/python",
        "runs/mine/checkpoints/0001/student.safetensors",
        "demo/world/a.mp4",
        "my_videos/diving/a.mp4",
        "clip.bin",
        "mlflow.db",
        "mine.parquet",
    ):
        (folder / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "repo" / name).write_bytes(b"x")
    path = folder / "package.zip"
    excludes = get_runtime_env_default_excludes()
    create_package(str(folder / "repo"), path, include_gitignore=True, excludes=excludes)
    return path


def test_package_holds_the_code_and_what_it_reads(package: Path) -> None:
    names = set(zipfile.ZipFile(package).namelist())
    assert {f"jobs/{name}" for name in JOBS} <= names
    code = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "lssl_ray").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert code <= names, sorted(code - names)
    assert "jobs/recipes/own_videos.yaml" in names
    assert "mine.parquet" in names  # a manifest beside the code may be named in a recipe


def test_package_leaves_out_runs_videos_weights_and_tests(package: Path) -> None:
    names = zipfile.ZipFile(package).namelist()
    wrong = (".git/", ".venv/", "runs/", "demo/", "my_videos/d", "tests/", "docs/", "clip.bin")
    assert [name for name in names if name.startswith(wrong) and not name.endswith("/")] == []
    assert "mlflow.db" not in names


def test_package_is_as_small_as_documented(package: Path) -> None:
    assert package.stat().st_size < MOST_MIB * 2**20
    assert f"under {MOST_MIB} MiB" in (ROOT / "docs" / "cluster.md").read_text()


def test_entry_points_are_all_there_and_thin() -> None:
    expected = ("build_concepts", "check_data", "embed", "evaluate", "sweep", "train")
    assert [Path(name).stem for name in JOBS] == list(expected)
    assert all(len((ROOT / "jobs" / name).read_text().splitlines()) < 60 for name in JOBS)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("build_concepts", "--clip"),
        ("check_data", "--decode"),
        ("embed", "--rows-per-part"),
        ("evaluate", "--protocol"),
    ],
)
def test_entry_point_takes_the_options_of_its_verb(job: str, said: str) -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--help"],
        capture_output=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=60,
        check=True,
    )
    assert said in found.stdout
