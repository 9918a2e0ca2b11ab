"""Overrides as an algebra: what they set, what they leave, and in which order they win."""

import copy
import json
from typing import Any

import pytest
from config_samples import REQUIRED
from hypothesis import given
from hypothesis import strategies as st

from lssl_ray.config import flatten_config, load_config
from lssl_ray.config.loading import apply_override, validate_config
from lssl_ray.errors import ConfigError

BASE = [
    f"{section}.{key}={value}"
    for section, fields in REQUIRED.items()
    for key, value in fields.items()
]
# Independent fields with values that any combination allows.
FIELDS = {
    "run.seed": st.integers(0, 2**31),
    "run.log_every": st.integers(1, 100),
    "views.global.num_frames": st.integers(1, 64),
    "views.local.num_frames": st.integers(1, 64),
    "views.window_seconds": st.floats(0.1, 100),
    "optim.learning_rate": st.floats(1e-9, 1),
    "optim.max_steps": st.none() | st.integers(1, 1000),
    "tracking.experiment": st.sampled_from(["one", "two words", "1e-3", "off", "näme"]),
    "evaluation.manifests.test": st.sampled_from(["a.parquet", "b/c.parquet"]),
}


def write_override(key: str, value: object) -> str:
    return f"{key}={json.dumps(value)}"


SETTINGS = st.sampled_from(sorted(FIELDS)).flatmap(lambda key: st.tuples(st.just(key), FIELDS[key]))
KEYS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(".".join)


@given(settings=st.lists(SETTINGS, max_size=8))
def test_overrides_last_one_of_a_key_wins_and_others_stay(
    settings: list[tuple[str, Any]],
) -> None:
    config = load_config(None, [*BASE, *(write_override(*setting) for setting in settings)])
    expected = flatten_config(validate_config(REQUIRED)) | dict(settings)
    if "evaluation.manifests.test" in expected:
        del expected["evaluation.manifests"]  # no longer an empty leaf
    assert flatten_config(config) == expected


@given(settings=st.lists(SETTINGS, unique_by=lambda setting: setting[0]), data=st.data())
def test_overrides_of_different_keys_commute(
    settings: list[tuple[str, Any]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(settings))
    texts = [[write_override(*setting) for setting in order] for order in (settings, shuffled)]
    assert load_config(None, BASE + texts[0]) == load_config(None, texts[1] + BASE)


@given(setting=SETTINGS)
def test_override_twice_is_override_once(setting: tuple[str, Any]) -> None:
    text = write_override(*setting)
    assert load_config(None, [*BASE, text, text]) == load_config(None, [*BASE, text])


@given(key=KEYS, value=st.integers() | st.lists(st.integers()) | st.text("xyz", min_size=1))
def test_apply_override_sets_exactly_that_key(key: str, value: Any) -> None:
    data: dict[str, Any] = {"untouched": {"a": 1}}
    before = copy.deepcopy(data)
    apply_override(data, write_override(key, value))
    *parents, last = key.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    assert inner.pop(last) == value
    for depth in range(len(parents), 0, -1):
        outer = data
        for parent in parents[: depth - 1]:
            outer = outer[parent]
        assert outer.pop(parents[depth - 1]) == {}
    assert data == before


def test_override_equals_the_same_value_in_the_file() -> None:
    nested = copy.deepcopy(REQUIRED) | {"views": {"local": {"count": 3, "area": [0.1, 0.2]}}}
    overrides = ["views.local.count=3", "views.local.area=[0.1, 0.2]"]
    assert load_config(None, BASE + overrides) == validate_config(nested)


def test_override_of_a_whole_section_replaces_it() -> None:
    config = load_config(None, [*BASE, "optim.epochs=3", "optim={max_steps: 5}"])
    assert (config.optim.epochs, config.optim.max_steps) == (20, 5)


def test_override_value_may_hold_equal_signs_and_colons() -> None:
    uri = "postgresql://user@host/db?sslmode=require"
    assert load_config(None, [*BASE, f"tracking.uri={uri}"]).tracking.uri == uri


@pytest.mark.parametrize(
    "override", ["", "run.seed", "=3", ".=3", "run..seed=3", ".seed=3", "run.=3"]
)
def test_override_of_wrong_form_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load_config(None, [*BASE, override])


@pytest.mark.parametrize("override", ["run.name=[1", "run.name={a: 1, a: 2}", "run.name={on: 1}"])
def test_override_of_bad_yaml_is_refused_and_quoted(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*BASE, override])
    assert override in str(caught.value)


def test_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim is a value"):
        load_config(None, [*BASE, "optim=3", "optim.epochs=3"])


def test_apply_override_reads_exponents_as_numbers() -> None:
    data: dict[str, Any] = {}
    apply_override(data, "a.b=1e-3")
    assert data == {"a": {"b": 0.001}}
