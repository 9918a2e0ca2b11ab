"""Reading recipes: what YAML means, what stays at its default, what survives a round trip."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from config_samples import REQUIRED, write_recipe
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.config import (
    RunConfig,
    dump_config,
    flatten_config,
    load_config,
    load_config_text,
)
from lssl_ray.config.loading import describe_schema, validate_config

RECIPES = sorted((Path(__file__).resolve().parents[3] / "jobs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("3.5e-4", 3.5e-4), (".5e-3", 5e-4), ("1.0e-3", 1e-3)],
)
def test_load_exponent_without_point_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    path = write_recipe(tmp_path, f"optim: {{learning_rate: {text}}}\n")
    assert load_config(path).optim.learning_rate == value
    other = write_recipe(tmp_path, "")
    assert load_config(other, [f"optim.learning_rate={text}"]).optim.learning_rate == value


def test_load_whole_number_for_a_float_is_taken(tmp_path: Path) -> None:
    assert (
        load_config(write_recipe(tmp_path, ""), ["optim.gradient_clip=2"]).optim.gradient_clip
        == 2.0
    )


@pytest.mark.parametrize(("text", "value"), [("on", True), ("off", False), ("yes", True)])
def test_load_on_and_off_are_truth_values(tmp_path: Path, text: str, value: bool) -> None:
    path = write_recipe(tmp_path, f"cluster: {{use_gpu: {text}}}\n")
    assert load_config(path).cluster.use_gpu is value


def test_load_date_for_a_text_stays_as_written(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "run: {name: 2026-01-31}\n")
    assert load_config(path).run.name == "2026-01-31"


def test_load_list_becomes_tuple(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "views: {local: {area: [0.1, 0.3]}}\n")
    assert load_config(path).views.local.area == (0.1, 0.3)


def test_load_partial_section_keeps_other_defaults(tmp_path: Path) -> None:
    defaults = validate_config(REQUIRED)
    path = write_recipe(tmp_path, "views: {global: {num_frames: 4}}\noptim: {epochs: 3}\n")
    config = load_config(path)
    assert config.views.global_.num_frames == 4
    assert config.optim.epochs == 3
    changed = {"views.global.num_frames", "optim.epochs"}
    before, after = flatten_config(defaults), flatten_config(config)
    assert {key for key in before if before[key] != after[key]} == changed


def test_load_without_recipe_starts_from_defaults() -> None:
    overrides = ["clip.model=local-dir:clip", "data.manifest=clips.parquet"]
    config = load_config(None, [*overrides, "concepts.labels=labels.yaml"])
    assert config == validate_config(REQUIRED)


def test_config_later_change_is_refused() -> None:
    config = validate_config(REQUIRED)
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe_dumped_and_loaded_is_equal(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    path = tmp_path / "run_config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert load_config_text(dump_config(config)) == config


# Names that YAML 1.1, or our reading of it, would take for something else, among all others.
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True) | st.sampled_from(
    ["1e3", "1e-3", "on", "null", "2026-01-31", "0x10", "1.10", "1_000", "y", "010"]
)
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
) | st.sampled_from(["1e-3", "off", "~", "a: b", "- x", "# x", " x ", "{}."])


@given(
    name=NAMES,
    manifest=TEXTS,
    templates=st.lists(TEXTS, min_size=1, max_size=3),
    splits=st.dictionaries(NAMES, TEXTS, max_size=3),
    rate=st.floats(min_value=1e-12, max_value=1e12),
    area=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1.0)),
    max_steps=st.none() | st.integers(1, 10**9),
)
def test_config_any_values_dumped_and_loaded_are_equal(
    name: str,
    manifest: str,
    templates: list[str],
    splits: dict[str, str],
    rate: float,
    area: tuple[float, float],
    max_steps: int | None,
) -> None:
    config = validate_config(
        {
            "run": {"name": name},
            "clip": {"model": "local-dir:clip"},
            "data": {"manifest": manifest},
            "concepts": {"labels": "labels.yaml", "templates": templates},
            "views": {"global": {"area": area}},
            "optim": {"learning_rate": rate, "max_steps": max_steps},
            "evaluation": {"manifests": splits},
        }
    )
    assert config.run.name == name
    assert config.evaluation.manifests == splits
    assert load_config_text(dump_config(config)) == config


def test_flatten_keys_are_valid_overrides(tmp_path: Path) -> None:
    flat = flatten_config(validate_config(REQUIRED))
    assert flat["views.global.num_frames"] == 8
    overrides = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in flat.items()
    ]
    assert load_config(None, overrides) == validate_config(REQUIRED)


def test_describe_schema_lists_every_leaf_once_with_a_meaning() -> None:
    lines = describe_schema().splitlines()
    keys = [line.split("  ")[0] for line in lines]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(flatten_config(validate_config(REQUIRED)))
    assert not [line for line in lines if line.endswith("None") or len(line.split("  ")[2]) < 8]


def test_schema_sections_stay_small() -> None:
    for name, field in RunConfig.model_fields.items():
        section: Any = field.annotation
        assert len(section.model_fields) <= 12, name
