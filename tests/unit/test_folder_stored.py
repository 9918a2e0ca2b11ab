"""Run folders with `run.storage`: the store is as protected as the folder, and found again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lssl_ray.config import RunConfig, load_config
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.folder import create_run_folder, find_store, open_run_folder, open_stored_run
from lssl_ray.storage.mirror import RunMirror

BuildConfig = Callable[..., RunConfig]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def create(build_config: BuildConfig, storage: str) -> Callable[..., Path]:
    """Makes the folder of a run that trained a step, its record in the store."""

    def create(*overrides: str, overwrite: bool = False) -> Path:
        config = build_config(f"run.storage={storage}", "run.name=mine", *overrides)
        folder, config = create_run_folder(config, overwrite=overwrite)
        folder.metrics.write_text('{"step": 1}\n')
        store = find_store(config)
        assert store is not None
        RunMirror(store, folder.path).put_record()
        return folder.path

    return create


def test_create_where_the_store_holds_a_run_is_refused_though_no_folder_is_here(
    create: Callable[..., Path], tmp_path: Path
) -> None:
    create("run.seed=1")
    config = tmp_path / "store" / "mine" / "run_config.yaml"
    before = config.read_bytes()
    with pytest.raises(CheckpointError, match="--resume file://"):
        create("run.seed=2", f"run.folder={tmp_path}/another machine")
    assert config.read_bytes() == before
    assert not (tmp_path / "another machine").exists()


def test_create_with_overwrite_leaves_nothing_of_the_stored_run(
    create: Callable[..., Path], tmp_path: Path
) -> None:
    create("run.seed=1")
    old = tmp_path / "store" / "mine" / "checkpoints" / "step_00000001"
    old.mkdir(parents=True)
    (old / "student.safetensors").write_text("old")
    create("run.seed=2", f"run.folder={tmp_path}/another machine", overwrite=True)
    assert load_config(tmp_path / "store" / "mine" / "run_config.yaml").run.seed == 2
    assert not old.exists()


def test_open_by_uri_makes_a_copy_that_is_the_same_run(
    create: Callable[..., Path], storage: str, tmp_path: Path
) -> None:
    config = load_config(create("run.seed=7") / "run_config.yaml")
    parent = tmp_path / "another machine"
    folder, opened = open_stored_run(f"{storage}/mine/", ["run.log_every=3"], parent=parent)
    assert folder.path == parent / "mine"
    assert folder.metrics.read_text() == '{"step": 1}\n'
    assert (opened.run.seed, opened.run.log_every) == (7, 3)
    assert (opened.run.folder, opened.run.storage) == (str(parent), storage)
    assert opened.data == config.data
    assert load_config(folder.config) == opened


def test_open_by_uri_where_another_run_is_in_the_way_is_refused(
    create: Callable[..., Path], build_config: BuildConfig, storage: str, tmp_path: Path
) -> None:
    create()
    parent = tmp_path / "another machine"
    create_run_folder(build_config(f"run.folder={parent}", "run.name=mine"), overwrite=False)
    before = (parent / "mine" / "run_config.yaml").read_bytes()
    with pytest.raises(CheckpointError, match="move it away"):
        open_stored_run(f"{storage}/mine", [], parent=parent)
    assert (parent / "mine" / "run_config.yaml").read_bytes() == before


def test_open_by_uri_of_no_run_is_refused(storage: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No run to resume"):
        open_stored_run(f"{storage}/mine", [], parent=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_open_by_uri_with_frozen_settings_touches_nothing(
    create: Callable[..., Path], storage: str, tmp_path: Path
) -> None:
    create()
    session = (tmp_path / "store" / "mine" / "session.json").read_bytes()
    with pytest.raises(ConfigError, match=r"run\.seed"):
        open_stored_run(f"{storage}/mine", ["run.seed=3"], parent=tmp_path / "another machine")
    assert (tmp_path / "store" / "mine" / "session.json").read_bytes() == session


def test_open_by_folder_may_begin_to_keep_a_run_and_not_stop(
    build_config: BuildConfig, storage: str, tmp_path: Path
) -> None:
    folder, _ = create_run_folder(build_config("run.name=mine"), overwrite=False)
    open_run_folder(folder.path, [f"run.storage={storage}"])
    assert (tmp_path / "store" / "mine" / "run_config.yaml").is_file()
    for other in ("null", f"file://{tmp_path}/elsewhere"):
        with pytest.raises(ConfigError, match="kept at"):
            open_run_folder(folder.path, [f"run.storage={other}"])
    assert load_config(folder.config).run.storage == storage


@pytest.mark.parametrize(
    ("storage", "named"),
    [
        ("runs", "run.folder"),
        ("https://host/runs", "s3://"),
        ("s3://KEY:hunt/er2@bucket/runs", "AWS_SECRET_ACCESS_KEY"),
        ("s3://KEY:hunter2@bucket/runs", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/runs?endpoint_override=x", "AWS_ENDPOINT_URL"),
    ],
)
def test_config_with_impossible_storage_is_refused(
    build_config: BuildConfig, storage: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=r"run\.storage") as caught:
        build_config(f"run.storage={storage}")
    assert named in str(caught.value)
    assert "hunt" not in str(caught.value) and "er2" not in str(caught.value)
