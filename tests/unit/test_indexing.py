"""`lssl-ray data index` and `data check` as commands: files they leave, exit codes, engines."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
from typer.testing import CliRunner, Result

from lssl_ray.cli import app
from lssl_ray.indexing import MIN_FILES_FOR_RAY, choose_engine
from lssl_ray.video.manifest import load_manifest

EXIT_WRONG, EXIT_REFUSED = 1, 2


def _invoke(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env=environment)


@pytest.fixture
def folder(tmp_path: Path, videos: tiny.VideoSet) -> Path:
    """Three good videos and a bad one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, path in enumerate(videos.paths[:3]):
        shutil.copy(path, folder / f"{number}.mp4")
    (folder / "bad.mp4").write_text("no video")
    return folder


def test_data_index_leaves_manifest_and_report_and_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "m.parquet"
    result = _invoke("index", folder / "*.mp4", "-o", out, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "m.parquet",
        "m.report.html",
        "m.report.json",
    ]
    assert "3 usable and 1 bad of 4" in result.stdout
    assert (len(load_manifest(str(out))), load_manifest(str(out)).root) == (4, str(folder))


def test_data_index_of_nothing_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "m.parquet"
    assert _invoke("index", folder / "*.mkv", "-o", out).exit_code == EXIT_REFUSED
    assert list(out.parent.iterdir()) == []


def test_data_check_exit_code_tells_right_from_wrong(folder: Path, tmp_path: Path) -> None:
    out, corrected = tmp_path / "m.parquet", tmp_path / "corrected.parquet"
    assert _invoke("index", folder, "-o", out, "--no-report").exit_code == 0
    assert _invoke("check", out, "--decode").exit_code == 0
    (folder / "1.mp4").unlink()
    result = _invoke("check", out, "-o", corrected)
    assert result.exit_code == EXIT_WRONG
    assert str(folder / "1.mp4") in result.stdout
    reasons = {row.video_id: row.reason for row in load_manifest(str(corrected)).records()}
    assert reasons == {
        "0.mp4": None,
        "1.mp4": "missing",
        "2.mp4": None,
        "bad.mp4": "not_a_video",
    }
    assert (tmp_path / "corrected.report.html").exists()
    assert _invoke("check", corrected).exit_code == 0
    assert _invoke("check", tmp_path / "absent.parquet").exit_code == EXIT_REFUSED


@pytest.mark.parametrize("what", ["version", "rows"])
def test_data_index_over_an_outdated_manifest_probes_anew(
    folder: Path, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "m.parquet"
    assert _invoke("index", folder, "-o", out, "--no-report").exit_code == 0
    table = pq.ParquetFile(out).read()
    if what == "rows":
        pq.write_table(table.slice(0, 0), out)
    else:
        (metadata,) = table.schema.metadata.values()
        other = metadata.replace(b'"version": 1', b'"version": 99')
        assert other != metadata
        pq.write_table(table.replace_schema_metadata({b"lssl_ray.manifest": other}), out)
    result = _invoke("index", folder, "-o", out, "--no-report")
    assert result.exit_code == 0, result.output
    assert "(0 known from before)" in result.stdout
    assert len(load_manifest(str(out))) == 4


def test_data_commands_do_not_write_over_another_file(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.csv"
    precious.write_text("years of work")
    manifest = tmp_path / "m.parquet"
    assert _invoke("index", folder, "-o", manifest, "--no-report").exit_code == 0
    for command in (("index", folder), ("check", manifest)):
        result = _invoke(*command, "-o", precious)
        assert result.exit_code == EXIT_REFUSED
        assert "precious.csv" in result.stderr
        assert precious.read_text() == "years of work"


@pytest.mark.parametrize(
    ("asked", "num_files", "address", "where"),
    [
        ("auto", MIN_FILES_FOR_RAY - 1, None, "local"),
        ("auto", MIN_FILES_FOR_RAY, None, "ray"),
        ("auto", 1, "10.0.0.1:6379", "ray"),
        ("local", MIN_FILES_FOR_RAY, "10.0.0.1:6379", "local"),
        ("ray", 1, None, "ray"),
    ],
)
def test_choose_engine_follows_address_and_number(
    asked: str, num_files: int, address: str | None, where: str
) -> None:
    chosen, why = choose_engine(asked, num_files=num_files, address=address)  # type: ignore[arg-type]
    assert chosen == where
    assert why
