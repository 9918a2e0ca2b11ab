"""Run folders: who may write where, and what a resumed run may change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lssl_ray.config import RunConfig, load_config
from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.folder import create_run_folder, open_run_folder, resolve_paths

BuildConfig = Callable[..., RunConfig]


def test_create_new_run_files_its_configuration(build_config: BuildConfig) -> None:
    folder, config = create_run_folder(build_config("run.name=first"), overwrite=False)
    assert folder.path.name == "first"
    assert load_config(folder.config) == config
    made = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*"))
    assert made == ["artifacts", "logs", "run_config.yaml"]


def test_create_existing_run_is_refused_and_untouched(build_config: BuildConfig) -> None:
    folder, _ = create_run_folder(build_config("run.seed=1"), overwrite=False)
    folder.metrics.write_text('{"step": 1}\n')
    before = folder.config.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        create_run_folder(build_config("run.seed=2"), overwrite=False)
    for way_out in ("--resume", "--run-name", "--overwrite"):
        assert way_out in str(caught.value)
    assert folder.config.read_bytes() == before


def test_create_over_a_run_refused_before_its_first_step_is_taken(
    build_config: BuildConfig,
) -> None:
    create_run_folder(build_config("run.seed=1"), overwrite=False)
    _, config = create_run_folder(build_config("run.seed=2"), overwrite=False)
    assert config.run.seed == 2


def test_create_over_an_empty_folder_is_taken(build_config: BuildConfig) -> None:
    config = build_config()
    Path(config.run.folder, config.run.name).mkdir(parents=True)
    folder, _ = create_run_folder(config, overwrite=False)
    assert folder.config.is_file()


def test_create_with_overwrite_leaves_nothing_of_the_old_run(build_config: BuildConfig) -> None:
    folder, _ = create_run_folder(build_config("run.seed=1"), overwrite=False)
    (folder.path / "checkpoints" / "step_00000001").mkdir(parents=True)
    _, config = create_run_folder(build_config("run.seed=2"), overwrite=True)
    assert config.run.seed == 2
    assert load_config(folder.config).run.seed == 2
    assert not (folder.path / "checkpoints").exists()


def test_create_with_overwrite_refuses_a_folder_that_is_no_run(build_config: BuildConfig) -> None:
    config = build_config("run.name=photos")
    foreign = Path(config.run.folder, "photos")
    foreign.mkdir(parents=True)
    (foreign / "holiday.jpg").write_bytes(b"irreplaceable")
    with pytest.raises(CheckpointError, match=r"run_config\.yaml"):
        create_run_folder(config, overwrite=True)
    assert (foreign / "holiday.jpg").read_bytes() == b"irreplaceable"


def test_create_where_a_file_is_in_the_way_is_refused(build_config: BuildConfig) -> None:
    config = build_config("run.name=notes")
    Path(config.run.folder).mkdir(parents=True)
    Path(config.run.folder, "notes").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="notes"):
            create_run_folder(config, overwrite=overwrite)
    assert Path(config.run.folder, "notes").read_text() == "mine"


def test_resolve_relative_paths_become_absolute(
    build_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "weights.safetensors").touch()
    config = resolve_paths(
        build_config(
            "run.folder=runs",
            "data.manifest=clips.parquet",
            "concepts.labels=~/labels.yaml",
            "evaluation.manifests={a: a.parquet, b: /b.parquet}",
            "clip.model='local-dir:clip'",
            "clip.weights=weights.safetensors",
            "tracking.uri='sqlite:///mlflow.db'",
        )
    )
    assert config.run.folder == str(tmp_path / "runs")
    assert config.data.manifest == str(tmp_path / "clips.parquet")
    assert config.concepts.labels == str(tmp_path / "home" / "labels.yaml")
    assert config.evaluation.manifests == {"a": str(tmp_path / "a.parquet"), "b": "/b.parquet"}
    assert config.clip.model == f"local-dir:{tmp_path / 'clip'}"
    assert config.clip.weights == str(tmp_path / "weights.safetensors")
    assert config.tracking.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert resolve_paths(config) == config


def test_resolve_names_that_are_no_paths_stay(
    build_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = build_config(
        "clip.model=ViT-B-16", "clip.weights=openai", "tracking.uri='http://127.0.0.1:5000'"
    )
    resolved = resolve_paths(config)
    assert (resolved.clip.model, resolved.clip.weights) == ("ViT-B-16", "openai")
    assert resolved.tracking.uri == "http://127.0.0.1:5000"


def test_open_existing_run_returns_what_it_was_made_with(build_config: BuildConfig) -> None:
    folder, config = create_run_folder(build_config(), overwrite=False)
    assert open_run_folder(folder.path, []) == (folder, config)


@pytest.mark.parametrize(
    "override",
    [
        "run.seed=7",
        "optim.epochs=9",
        "run.name=other",
        "data.manifest=x",
        "clustering=1",
        "tracking",
    ],
)
def test_open_with_override_of_what_is_computed_is_refused(
    build_config: BuildConfig, override: str
) -> None:
    folder, config = create_run_folder(build_config(), overwrite=False)
    with pytest.raises(ConfigError) as caught:
        open_run_folder(folder.path, ["run.log_every=3", override])
    assert override in str(caught.value)
    assert "run.stop_at_step" in str(caught.value)
    assert load_config(folder.config) == config


def test_open_with_allowed_overrides_files_them(build_config: BuildConfig) -> None:
    folder, _ = create_run_folder(build_config(), overwrite=False)
    allowed = [
        "run.stop_at_step=3",
        "run.log_every=4",
        "run.checkpoint_every=5",
        "run.checkpoints_to_keep=6",
        "data.max_bad_fraction=0.5",
        "data.decode_deadline_seconds=7",
        "cluster.num_workers=2",
        "tracking.experiment=other",
    ]
    _, config = open_run_folder(folder.path, allowed)
    assert (config.run.stop_at_step, config.run.checkpoints_to_keep) == (3, 6)
    assert (config.cluster.num_workers, config.tracking.experiment) == (2, "other")
    assert load_config(folder.config) == config


def test_open_unknown_run_lists_the_known_ones(build_config: BuildConfig) -> None:
    for name in ("second", "first"):
        create_run_folder(build_config(f"run.name={name}"), overwrite=False)
    parent = Path(build_config().run.folder)
    (parent / "no-run").mkdir()
    with pytest.raises(CheckpointError, match="first, second") as caught:
        open_run_folder(parent / "third", [])
    assert "no-run" not in str(caught.value)
    assert not (parent / "third").exists()


def test_open_where_no_runs_are_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none"):
        open_run_folder(tmp_path / "runs" / "lost", [])
