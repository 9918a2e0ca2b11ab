"""cluster.yaml and its variant for Google: schema, Ray's preparation, our promises."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray.autoscaler
import yaml
from click import Option
from jsonschema import Draft7Validator, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

ROOT = Path(__file__).resolve().parents[3]
FILES = ["cluster.yaml", "deploy/cluster_gcp.yaml"]


def load_file(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name).read_text()))


def list_start_commands(cluster: dict[str, Any]) -> list[str]:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


@pytest.mark.parametrize("name", FILES)
def test_cluster_file_fits_the_schema_that_ray_ships(name: str) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    Draft7Validator(schema).validate(load_file(name))


@pytest.mark.parametrize("name", FILES)
def test_cluster_file_passes_rays_preparation(name: str) -> None:
    prepared = prepare_config(load_file(name))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert types["head"]["max_workers"] == 0
    workers = {"train", "decode"}
    assert set(types) == {"head", *workers}
    assert sum(types[kind]["max_workers"] for kind in workers) == prepared["max_workers"]


def test_cluster_file_with_a_misspelt_key_is_refused_by_the_same_check() -> None:
    cluster = load_file("cluster.yaml")
    cluster["available_node_types"]["train"]["label"] = {"pool": "train"}
    with pytest.raises(ValidationError, match="label"):
        validate_config(prepare_config(cluster))


@pytest.mark.parametrize("name", FILES)
def test_head_takes_no_work_and_is_never_spot(name: str) -> None:
    cluster = load_file(name)
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "spot" not in json.dumps(head).lower()


@pytest.mark.parametrize("name", FILES)
def test_workers_are_spot_and_told_apart_by_label(name: str) -> None:
    types = load_file(name)["available_node_types"]
    for pool in ("train", "decode"):
        assert types[pool]["labels"] == {"pool": pool}
        assert "spot" in json.dumps(types[pool]["node_config"]).lower()


@pytest.mark.parametrize("name", FILES)
def test_every_ray_start_asks_for_the_token_and_every_node_gets_it(name: str) -> None:
    cluster = load_file(name)
    commands = list_start_commands(cluster)
    assert len(commands) == 2
    for command in commands:
        assert "RAY_AUTH_MODE=token" in command.split("ray start")[0]
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", FILES)
def test_ray_start_is_given_only_options_that_it_has(name: str) -> None:
    known = {
        spelling
        for option in start.params
        if isinstance(option, Option)
        for spelling in option.opts
    }
    for command in list_start_commands(load_file(name)):
        given = set(re.findall(r"(--[a-z-]+)", command.split("ray start")[1]))
        assert given <= known, given - known


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_open_to_the_world(name: str) -> None:
    cluster = load_file(name)
    assert "0.0.0.0" not in json.dumps(cluster)
    head_command = list_start_commands(cluster)[0]
    assert "--dashboard-host=127.0.0.1" in head_command
    for node_type in cluster["available_node_types"].values():
        settings = node_type["node_config"]
        if cluster["provider"]["type"] == "aws":
            # Without groups of one's own Ray makes one with SSH open to everybody.
            assert settings["SecurityGroupIds"]
            assert settings["MetadataOptions"]["HttpTokens"] == "required"
        else:
            assert all("accessConfigs" not in entry for entry in settings["networkInterfaces"])
            assert cluster["provider"]["use_internal_ips"] is True


@pytest.mark.parametrize(("name", "cloud"), [(FILES[0], "aws"), (FILES[1], "gcp")])
def test_workers_watch_for_the_notices_of_their_cloud(name: str, cloud: str) -> None:
    commands = load_file(name)["worker_start_ray_commands"]
    assert any(f"lssl_ray.cluster.preemption watch --cloud {cloud}" in text for text in commands)


@pytest.mark.parametrize("name", FILES)
def test_every_setting_beside_the_node_types_is_not_rays_default(name: str) -> None:
    cluster = load_file(name)
    defaults = prepare_config({"cluster_name": "x", "provider": {"type": "aws"}})
    same = {key for key, value in cluster.items() if defaults.get(key) == value}
    # Ray's default, kept for the reader who must know as whom to log in.
    assert same <= {"auth"}
