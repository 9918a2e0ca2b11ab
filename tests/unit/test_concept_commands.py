"""`lssl-ray concepts` and `concepts.space`, as a user meets them, on the tiny CLIP."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from lssl_ray import build
from lssl_ray.cli import app
from lssl_ray.concepts.pictures import draw_concept_map
from lssl_ray.concepts.space import ConceptSpace, build_concept_space, load_concept_space
from lssl_ray.concepts.vocabulary import load_vocabulary
from lssl_ray.config import RunConfig, load_config
from lssl_ray.display import EXIT_REFUSED
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.folder import resolve_paths
from lssl_ray.model.clip import ClipModel, load_clip

ACTIONS = {
    "brushing hair": {"static": ["a brush in one hand"], "dynamic": ["the hand goes down"]},
    "brush the hair": {"static": ["long hair held back"], "dynamic": ["strokes one by one"]},
    "bowling": {"static": ["a lane with pins", "a ball"], "dynamic": ["the ball rolls away"]},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lssl_ray" / "concept_spaces"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.yaml"
    data = {"provenance": {"written_by": "nobody"}, "labels": ACTIONS}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def invoke(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1"}
    words = ["concepts", *(str(item) for item in arguments)]
    result = CliRunner().invoke(app, words, env=environment)
    assert "Traceback" not in result.output
    return result


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == EXIT_REFUSED, result.output
    return result.stderr


def build_file(labels: object, clip: Path, out: Path, *more: object) -> str:
    return succeed("build", "--labels", labels, "--clip", f"local-dir:{clip}", "--out", out, *more)


def test_build_writes_the_space_of_the_labels(
    cache: Path, labels: Path, tiny_clip_dir: Path, tiny_clip: ClipModel, tmp_path: Path
) -> None:
    out = tmp_path / "space.safetensors"
    prompts = ("--template", "{}", "--template", "so {}", "--description-template", "see {}")
    build_file(labels, tiny_clip_dir, out, "--layout", "full", *prompts)
    space = load_concept_space(out, clip_digest=tiny_clip.digest)
    expected = build_concept_space(
        load_vocabulary(labels),
        tiny_clip,
        layout="full",
        templates=("{}", "so {}"),
        description_templates=("see {}",),
    )
    assert space.description_texts == expected.description_texts
    assert (space.labels, space.templates) == (expected.labels, expected.templates)
    assert space.descriptions is not None and expected.descriptions is not None
    torch.testing.assert_close(space.categories, expected.categories, rtol=0, atol=1e-6)
    torch.testing.assert_close(space.descriptions, expected.descriptions, rtol=0, atol=1e-6)


def test_build_again_hits_the_cache_and_says_so(
    cache: Path, labels: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    said = [build_file(labels, tiny_clip_dir, out) for out in outs]
    (kept,) = cache.iterdir()
    assert [("Found in the cache" in text) for text in said] == [False, True]
    assert str(kept) in said[0] and str(kept) in said[1]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    labels.write_text(labels.read_text().replace("a ball", "a heavy ball"))
    build_file(labels, tiny_clip_dir, outs[1])
    assert len(list(cache.iterdir())) == 2


def test_build_without_cache_leaves_none_and_needs_a_file(
    cache: Path, labels: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    build_file(labels, tiny_clip_dir, tmp_path / "space.safetensors", "--no-cache")
    assert not cache.exists() and (tmp_path / "space.safetensors").exists()
    clip = f"local-dir:{tiny_clip_dir}"
    assert "--out" in refuse("build", "--labels", labels, "--clip", clip, "--no-cache")


def test_build_and_show_report_near_duplicates(
    cache: Path, labels: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "space.safetensors"
    for text in (build_file(labels, tiny_clip_dir, out), succeed("show", labels)):
        assert "brushing hair = brush the hair" in text
        assert "1 pairs of the same words" in text


def test_show_of_a_label_file_tells_counts_and_provenance(labels: Path) -> None:
    text = succeed("show", labels, "--descriptions")
    for part in ("3 labels, 7 descriptions (2 to 3 per label)", "written_by: nobody"):
        assert part in text
    for kinds in ACTIONS.values():
        for phrase in kinds["static"] + kinds["dynamic"]:
            assert f"- {phrase}" in text


def test_show_of_a_space_tells_clip_and_neighbours(
    cache: Path, labels: Path, tiny_clip_dir: Path, tiny_clip: ClipModel, tmp_path: Path
) -> None:
    out = tmp_path / "space.safetensors"
    build_file(labels, tiny_clip_dir, out)
    text = succeed("show", out, "--picture", tmp_path / "new" / "map.png")
    assert tiny_clip.digest[:12] in text
    rows = load_concept_space(out).categories
    cosine = float(rows[0] @ rows[2])
    assert f"brushing hair {cosine:.2f}" in text  # in the row of bowling
    assert read_ink(tmp_path / "new" / "map.png") > 0.05


def test_show_picture_of_what_is_not_embedded_is_refused(labels: Path, tmp_path: Path) -> None:
    message = refuse("show", labels, "--picture", tmp_path / "map.png")
    assert "concepts build" in message
    assert not (tmp_path / "map.png").exists()


@pytest.mark.parametrize("source", ["bank:lss-x", "nowhere.yaml", "nowhere.safetensors"])
def test_show_of_what_is_not_there_is_refused_by_name(source: str) -> None:
    assert source in refuse("show", source)


def test_compare_counts_sizes_and_overlap(
    cache: Path, labels: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "space.safetensors"
    build_file(labels, tiny_clip_dir, out)
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in succeed("compare", out, "bank:hmdb51").splitlines()
        if line.startswith("│")
    ]
    rows = load_concept_space(out).categories
    cosines = rows @ rows.T - 9 * torch.eye(3)
    nearest = f"{float(cosines.max(dim=1).values.mean()):.3f}"
    assert cells[0][1:3] + cells[0][4:] == ["3", "7", nearest]
    assert cells[1] == ["bank:hmdb51", "51", "306", "not embedded", "-"]
    # HMDB51 has "brushing hair", of the same words as "brush the hair".
    assert [row[1:] for row in cells[2:]] == [["", "1 + 1"], ["1", ""]]


def test_compare_of_one_source_is_refused(labels: Path) -> None:
    assert "two or more" in refuse("compare", labels)


def read_ink(path: Path) -> float:
    """Share of pixels that are not white."""
    with Image.open(path) as image:
        return float((np.asarray(image.convert("L")) < 250).mean())


@pytest.mark.parametrize("num_labels", [2, 480])
def test_concept_map_shows_few_and_many_labels(tmp_path: Path, num_labels: int) -> None:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(num_labels, 16), dim=1)
    space = ConceptSpace(
        labels=tuple(f"doing $thing$ number {number}" for number in range(num_labels)),
        categories=rows,
        description_texts=((),) * num_labels,
        descriptions=None,
        link=None,
        layout="pooled",
        templates=("{}",),
        description_templates=("{}",),
        clip_name="tiny",
        clip_digest="0" * 64,
    )
    draw_concept_map(space, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert max(image.size) < 5000
    assert read_ink(tmp_path / "map.png") > 0.05


@pytest.fixture
def space_file(cache: Path, videos: tiny.VideoSet, tiny_clip_dir: Path, tmp_path: Path) -> Path:
    out = tmp_path / "space.safetensors"
    build_file(videos.labels, tiny_clip_dir, out, "--layout", "full", "--template", "see {}")
    return out


def test_run_with_a_built_space_trains_in_it_as_it_is(
    build_config: Callable[..., RunConfig], space_file: Path, tiny_clip: ClipModel
) -> None:
    config = build_config("concepts.labels=null", f"concepts.space={space_file}")
    space, expected = build.build_space(config, tiny_clip), load_concept_space(space_file)
    assert (space.layout, space.templates) == ("full", ("see {}",))
    assert torch.equal(space.categories, expected.categories)
    assert space.link is not None and space.link.shape == (4, 8)


def test_run_with_a_space_of_another_clip_is_refused(
    build_config: Callable[..., RunConfig], space_file: Path, tmp_path: Path
) -> None:
    other = load_clip(f"local-dir:{tiny.write_tiny_clip(tmp_path / 'other', seed=1)}", weights=None)
    config = build_config("concepts.labels=null", f"concepts.space={space_file}")
    with pytest.raises(DataError, match=other.digest[:12]):
        build.build_space(config, other)


def test_run_with_a_space_without_descriptions_names_the_way_out(
    build_config: Callable[..., RunConfig], cache: Path, tiny_clip_dir: Path, tmp_path: Path
) -> None:
    names, out = tmp_path / "names.txt", tmp_path / "names.safetensors"
    names.write_text("archery\nbowling\n")
    build_file(names, tiny_clip_dir, out)
    clip = load_clip(f"local-dir:{tiny_clip_dir}", weights=None)
    overrides = ("concepts.labels=null", f"concepts.space={out}")
    with pytest.raises(ConfigError, match=r"concepts\.spaces=category"):
        build.build_space(build_config(*overrides), clip)
    category = build_config(*overrides, "concepts.spaces=category")
    assert build.build_space(category, clip).labels == ("archery", "bowling")


def test_run_with_bank_labels_embeds_the_bank(
    build_config: Callable[..., RunConfig], tiny_clip: ClipModel
) -> None:
    config = resolve_paths(build_config("concepts.labels='bank:hmdb51'"))
    space = build.build_space(config, tiny_clip)
    assert len(space.labels) == 51 and "brushing hair" in space.labels


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["concepts.space=a.safetensors"], "concepts.labels"),
        (["concepts.labels=null"], "concepts.space"),
        (
            ["concepts.labels=null", "concepts.space=a.safetensors", "concepts.layout=full"],
            "concepts.layout",
        ),
        (
            ["concepts.labels=null", "concepts.space=a.safetensors", "concepts.templates=['{}']"],
            "concepts.templates",
        ),
    ],
)
def test_config_wants_either_labels_or_a_space(
    recipe_file: Path, overrides: list[str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(recipe_file, overrides)


def test_resolve_space_becomes_absolute_and_bank_names_stay(
    build_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = resolve_paths(build_config("concepts.labels=null", "concepts.space=s.safetensors"))
    assert (config.concepts.labels, config.concepts.space) == (
        None,
        str(tmp_path / "s.safetensors"),
    )
    assert resolve_paths(config) == config
    assert resolve_paths(build_config("concepts.labels='bank:lss-a'")).concepts.labels == (
        "bank:lss-a"
    )
