"""Concept spaces against open_clip's own zero-shot classifier, and their file."""

from pathlib import Path
from typing import Literal

import open_clip
import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from lssl_ray.concepts.space import (
    ConceptSpace,
    build_concept_space,
    load_concept_space,
    save_concept_space,
)
from lssl_ray.concepts.vocabulary import Vocabulary
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.model.clip import ClipModel

LABELS = ("archery", "riding a horse", "bowling")
DESCRIPTIONS = (("a bow", "an arrow"), ("a horse",), ("a ball", "a lane", "pins"))
TEMPLATES = ("a photo of {}.", "{} in a video", "{}")
VOCABULARY = Vocabulary(labels=LABELS, descriptions=DESCRIPTIONS)


def build(
    clip: ClipModel,
    *,
    vocabulary: Vocabulary = VOCABULARY,
    layout: Literal["pooled", "full"] = "pooled",
    templates: tuple[str, ...] = TEMPLATES,
) -> ConceptSpace:
    return build_concept_space(
        vocabulary,
        clip,
        layout=layout,
        templates=templates,
        description_templates=("{}.", "see {}"),
    )


@pytest.fixture(scope="module")
def clip_model(tiny_clip_dir: Path) -> torch.nn.Module:
    """The same CLIP, loaded by open_clip alone."""
    model = open_clip.create_model(f"local-dir:{tiny_clip_dir}")
    assert isinstance(model, torch.nn.Module)
    return model.eval()


def build_classifier(
    model: torch.nn.Module, folder: Path, texts: list[str], templates: list[str]
) -> Tensor:
    """open_clip's ensembling: [texts, embedding]."""
    weights = open_clip.build_zero_shot_classifier(
        model,
        tokenizer=open_clip.get_tokenizer(f"local-dir:{folder}"),
        classnames=texts,
        templates=[template.format for template in templates],
        use_tqdm=False,
    )
    return weights.T


def test_build_concept_space_categories_equal_open_clips_classifier(
    tiny_clip: ClipModel, clip_model: torch.nn.Module, tiny_clip_dir: Path
) -> None:
    space = build(tiny_clip)
    expected = build_classifier(clip_model, tiny_clip_dir, list(LABELS), list(TEMPLATES))
    torch.testing.assert_close(space.categories, expected, rtol=0, atol=1e-5)
    assert space.categories.dtype == torch.float32
    assert (expected[0] - expected[1]).abs().max() > 1e-2
    assert not space.categories.requires_grad and not space.categories.is_inference()


def test_build_concept_space_pooled_averages_each_labels_descriptions(
    tiny_clip: ClipModel, clip_model: torch.nn.Module, tiny_clip_dir: Path
) -> None:
    space = build(tiny_clip)
    assert space.descriptions is not None and space.link is None
    for row, texts in enumerate(DESCRIPTIONS):
        each = build_classifier(clip_model, tiny_clip_dir, list(texts), ["{}.", "see {}"])
        mean = each.sum(dim=0) / len(texts)
        torch.testing.assert_close(space.descriptions[row], mean / mean.norm(), rtol=0, atol=1e-5)


def test_build_concept_space_full_has_a_row_per_description_and_their_owners(
    tiny_clip: ClipModel, clip_model: torch.nn.Module, tiny_clip_dir: Path
) -> None:
    space = build(tiny_clip, layout="full")
    flat = [text for texts in DESCRIPTIONS for text in texts]
    expected = build_classifier(clip_model, tiny_clip_dir, flat, ["{}.", "see {}"])
    assert space.descriptions is not None and space.link is not None
    torch.testing.assert_close(space.descriptions, expected, rtol=0, atol=1e-5)
    assert space.link.tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 1],
    ]


def test_build_concept_space_rows_have_unit_length(tiny_clip: ClipModel) -> None:
    for layout in ("pooled", "full"):
        space = build(tiny_clip, layout=layout)
        assert space.descriptions is not None
        for rows in (space.categories, space.descriptions):
            torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))


def test_build_concept_space_labels_alone_have_no_description_space(tiny_clip: ClipModel) -> None:
    space = build(tiny_clip, vocabulary=Vocabulary(labels=LABELS, descriptions=((), (), ())))
    assert space.descriptions is None and space.link is None


def test_build_concept_space_many_prompts_equal_few(tiny_clip: ClipModel) -> None:
    labels = tuple(f"action {number}" for number in range(150))  # 450 prompts: two batches
    many = build(tiny_clip, vocabulary=Vocabulary(labels=labels, descriptions=((),) * 150))
    few = build(tiny_clip, vocabulary=Vocabulary(labels=labels[140:], descriptions=((),) * 10))
    torch.testing.assert_close(many.categories[140:], few.categories, rtol=0, atol=1e-6)


@pytest.mark.parametrize("template", ["no place", "{} and {}", ""])
def test_build_concept_space_template_without_one_place_is_refused(
    tiny_clip: ClipModel, template: str
) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        build(tiny_clip, templates=("{}", template))


@pytest.mark.parametrize("layout", ["pooled", "full"])
def test_load_concept_space_gives_back_what_was_saved(
    tiny_clip: ClipModel, tmp_path: Path, layout: Literal["pooled", "full"]
) -> None:
    space = build(tiny_clip, layout=layout)
    path = tmp_path / "new" / "space.safetensors"
    save_concept_space(space, path)
    loaded = load_concept_space(path, clip_digest=tiny_clip.digest)
    for name, value in vars(space).items():
        other = getattr(loaded, name)
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert same, name


def test_load_concept_space_of_another_tower_is_refused(
    tiny_clip: ClipModel, tmp_path: Path
) -> None:
    path = tmp_path / "space.safetensors"
    save_concept_space(build(tiny_clip), path)
    with pytest.raises(DataError, match=tiny_clip.digest[:12]):
        load_concept_space(path, clip_digest="0" * 64)
    assert load_concept_space(path).clip_digest == tiny_clip.digest


@pytest.mark.parametrize("content", ["missing", "text", "other safetensors", "other version"])
def test_load_concept_space_wrong_file_is_refused(
    tiny_clip: ClipModel, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "space.safetensors"
    if content == "text":
        path.write_text("labels")
    elif content == "other safetensors":
        save_file({"categories": torch.zeros(2, tiny.EMBEDDING)}, path)
    elif content == "other version":
        save_concept_space(build(tiny_clip), path)
        tensors = load_file(path)
        save_file(tensors, path, metadata={"lssl_ray.concept_space": '{"version": 99}'})
    named = "version 99" if content == "other version" else "not a concept space"
    with pytest.raises(DataError, match=named):
        load_concept_space(path)


def test_concept_space_scores_clip_text_highest_on_its_own_row(tiny_clip: ClipModel) -> None:
    space = build(tiny_clip, templates=("{}",))
    texts = F.normalize(tiny_clip.encode_text(tiny_clip.tokenize(list(LABELS))), dim=-1)
    assert (texts @ space.categories.T).argmax(dim=1).tolist() == [0, 1, 2]
