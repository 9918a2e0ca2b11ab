"""What a configuration refuses, and that the refusal says key, rule and way out."""

from pathlib import Path

import pytest
import yaml
from config_samples import REQUIRED, write_recipe

from lssl_ray.config import load_config
from lssl_ray.errors import ConfigError


def refuse(folder: Path, *overrides: str, text: str = "") -> list[str]:
    """The lines of the refusal, without its heading when it has one."""
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(folder, text), overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("run.seed=8.0", "run.seed"),
        ("run.seed=true", "run.seed"),
        ("run.seed='8'", "run.seed"),
        ("run.seed=18446744073709551616", "run.seed"),
        ("optim.clips_per_step=8.0", "optim.clips_per_step"),
        ("optim.clips_per_step=0", "optim.clips_per_step"),
        ("optim.learning_rate='1'", "optim.learning_rate"),
        ("optim.learning_rate=1e-3x", "optim.learning_rate"),
        ("optim.learning_rate=.inf", "optim.learning_rate"),
        ("optim.learning_rate=.nan", "optim.learning_rate"),
        ("optim.learning_rate=1e999", "optim.learning_rate"),
        ("optim.warmup_share=1", "optim.warmup_share"),
        ("cluster.use_gpu=1", "cluster.use_gpu"),
        ("cluster.address=10.0.0.1", "cluster.address"),
        ("tracking.experiment=off", "tracking.experiment"),
        ("clip.precision=fp16", "clip.precision"),
        ("run.name=../elsewhere", "run.name"),
        ("run.name=a'b", "run.name"),
        ("views.global.area=[0.1]", "views.global.area"),
        ("views.global.area=[0.1,0.2,0.3]", "views.global.area"),
        ("views.global.area=[0,1]", "views.global.area.0"),
        ("views.global=3", "views.global"),
        ("concepts.templates=[]", "concepts.templates"),
        ("evaluation.manifests={a/b: clips.parquet}", "evaluation.manifests.a/b"),
        ("run.seed.more=3", "run.seed"),
    ],
)
def test_load_wrong_value_is_refused_with_its_key(tmp_path: Path, override: str, key: str) -> None:
    heading, line = refuse(tmp_path, override)
    assert heading.startswith("1 problem ")
    assert line.strip().startswith(key)


def test_load_several_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "optim: {learning_rat: 1.0e-5, epochs: many}\nview: {}\n"
    heading, *lines = refuse(tmp_path, "run.seed=-1", text=text)
    assert heading.startswith("4 problems")
    keys = {line.split(":")[0].strip() for line in lines}
    assert keys == {"optim.learning_rat", "optim.epochs", "view", "run.seed"}


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("optim.learning_rat=1.0e-5", "learning_rate"),
        ("opti.epochs=3", "optim"),
        ("views.globall.size=32", "global"),
        ("views.local.sizes=32", "size"),
    ],
)
def test_load_unknown_key_suggests_the_closest(tmp_path: Path, override: str, meant: str) -> None:
    _, line = refuse(tmp_path, override)
    assert f"did you mean {meant}?" in line


def test_load_unknown_key_far_from_all_lists_the_known(tmp_path: Path) -> None:
    _, line = refuse(tmp_path, "tracking.zzz=3")
    assert "did you mean" not in line
    assert "uri, experiment" in line


def test_load_missing_values_are_named_with_their_override(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 problems")
    for key in ("clip.model", "data.manifest", "concepts.labels"):
        assert any(line.strip().startswith(key) and f"--set {key}=" in line for line in lines)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ("views.global.count=1", "views.local.count=0"),
            ("views.global.count", "views.local.count"),
        ),
        (("views.global.area=[0.9,0.4]",), ("views.global.area", "0.9", "0.4")),
        (("views.local.area=[0.9,0.4]",), ("views.local.area", "0.9", "0.4")),
        (("cluster.num_workers=33",), ("cluster.num_workers", "33", "optim.clips_per_step=32")),
        (("cluster.num_workers=[2, 33]",), ("cluster.num_workers", "33", "most 32")),
        (("cluster.num_workers=[4, 2]",), ("cluster.num_workers", "[4, 2]", "fewest")),
        (("clip.precision=bf16",), ("clip.precision", "cluster.use_gpu=true")),
        (("clip.model=ViT-B-16",), ("clip.weights", "tag")),
        (
            (
                "objective.weight_distill_category=0",
                "objective.weight_distill_description=0",
                "objective.weight_align=0",
                "objective.weight_prior=0",
            ),
            ("objective", "weight"),
        ),
    ],
)
def test_load_impossible_combination_names_fields_and_remedy(
    tmp_path: Path, overrides: tuple[str, ...], named: tuple[str, ...]
) -> None:
    heading, line = refuse(tmp_path, *overrides)
    assert heading.startswith("1 problem ")
    assert all(word in line for word in named)


def test_load_impossible_combinations_are_told_at_once(tmp_path: Path) -> None:
    heading, *lines = refuse(
        tmp_path, "cluster.num_workers=33", "clip.precision=bf16", "views.local.area=[0.9,0.4]"
    )
    assert heading.startswith("3 problems")
    assert len(lines) == 3


def test_load_impossible_combinations_are_told_beside_wrong_values(tmp_path: Path) -> None:
    heading, *lines = refuse(
        tmp_path, "run.seed=-1", "optim.epoch=2", "cluster.num_workers=33", "clip.precision=bf16",
        "cluster.use_gpu=maybe",
    )  # fmt: skip
    assert heading.startswith("4 problems")
    keys = [line.split(":")[0].strip() for line in lines]
    # bf16 may be fine with the GPU that the misspelt value meant.
    assert keys == ["run.seed", "optim.epoch", "cluster.use_gpu", "cluster.num_workers"]


def test_load_missing_values_hide_no_combination() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["views.local.area=[0.9,0.4]"])
    heading, *lines = str(caught.value).splitlines()
    assert heading.startswith("4 problems")
    assert lines[-1].split(":")[0].strip() == "views.local.area"


@pytest.mark.parametrize(
    "overrides",
    [
        ("views.global.count=1", "views.local.count=1"),
        ("views.global.count=2", "views.local.count=0"),
        ("views.local.area=[0.4,0.4]",),
        ("cluster.num_workers=3",),
        ("cluster.num_workers=[1, 32]",),
        ("cluster.num_workers=[2, 2]",),
        ("clip.precision=bf16", "cluster.use_gpu=true"),
        ("clip.model=ViT-B-16", "clip.weights=openai"),
        ("objective.weight_align=0", "objective.weight_distill_category=0"),
    ],
)
def test_load_possible_neighbour_of_a_refusal_is_taken(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    config = load_config(write_recipe(tmp_path, ""), overrides)
    assert config.data.manifest == REQUIRED["data"]["manifest"]


@pytest.mark.parametrize(
    "text",
    [
        "optim: [1",
        "optim: {epochs: 1, epochs: 2}\n",
        "evaluation: {manifests: {on: a}}\n",
        "7: 1\n",
    ],
    ids=["open-bracket", "key-twice", "key-on", "key-number"],
)
def test_load_misleading_yaml_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(REQUIRED) + text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml is not valid YAML"):
        load_config(path)


@pytest.mark.parametrize(
    "content", [b"- a list\n", b"just words\n", b"\xff\xfe\x00", b"a: &a [*a]\n"]
)
def test_load_file_that_is_no_mapping_of_sections_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)


def test_load_absent_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_load_python_object_in_yaml_is_not_built(tmp_path: Path) -> None:
    target = tmp_path / "made"
    lines = refuse(tmp_path, f"data.manifest=!!python/object/apply:os.mkdir ['{target}']")
    assert "not valid YAML" in lines[0]
    assert not target.exists()
