"""Passwords in a configuration are refused before anything files or shows them."""

from pathlib import Path

import pytest
from config_samples import write_recipe

from lssl_ray.config import load_config
from lssl_ray.config.passwords import find_passwords, has_password
from lssl_ray.errors import ConfigError
from lssl_ray.tracked import sync_run

SECRET = "sesame"


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRET}@127.0.0.1:5000",
        f"https://me:{SECRET}@host.example/mlflow",
        f"postgresql+psycopg2://me:{SECRET}@db/mlflow",
        f"s3://AKIA:{SECRET}@bucket/runs",
        f"http://:{SECRET}@host",
    ],
)
def test_has_password_finds_one_in_any_scheme(uri: str) -> None:
    assert has_password(uri)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000",
        "http://me@host:5000/a",
        "sqlite:////tmp/a:b@c/mlflow.db",
        "s3://bucket/a:b@c",
        "file:///a/b",
        "a: b@c",
        "",
    ],
)
def test_has_password_finds_none_where_none_is(text: str) -> None:
    assert not has_password(text)


def test_find_passwords_looks_into_mappings_and_lists() -> None:
    uri = f"http://me:{SECRET}@host"
    settings = {"tracking": {"uri": uri, "tags": {"a": "b"}}, "list": ["a", {"c": uri}], "n": 3}
    assert find_passwords(settings) == ["tracking.uri", "list.1.c"]


@pytest.mark.parametrize(
    "key", ["tracking.uri", "data.manifest", "tracking.tags.origin", "evaluation.manifests.test"]
)
def test_load_password_is_refused_by_its_key_and_not_repeated(tmp_path: Path, key: str) -> None:
    recipe = write_recipe(tmp_path, "")
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, [f"{key}=http://me:{SECRET}@host/a", "run.seed=-1"])
    assert key in str(caught.value) and "MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_sync_run_refuses_a_password_in_the_store_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        sync_run(tmp_path, uri=f"http://me:{SECRET}@host", experiment=None)
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
