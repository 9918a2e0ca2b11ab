"""The shipped CLIP: loads as any other, knows clean stills, and packing keeps what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lssl_ray.concepts.space import build_concept_space
from lssl_ray.concepts.vocabulary import load_vocabulary
from lssl_ray.demo import packed_clip
from lssl_ray.demo.job import LABELS
from lssl_ray.demo.stills import HELD_OUT_STREAM, render_stills
from lssl_ray.model.clip import ClipModel, load_clip
from lssl_ray.model.pixels import to_pixels


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    folder = packed_clip.unpack_tiny_clip(tmp_path_factory.mktemp("shipped"))
    return load_clip(f"local-dir:{folder}", weights=None)


def test_shipped_clip_knows_clean_stills_by_name(shipped: ClipModel) -> None:
    space = build_concept_space(
        load_vocabulary(LABELS),
        shipped,
        layout="pooled",
        templates=["a photo of a person {}."],
        description_templates=["{}."],
    )
    stills = render_stills(160, seed=1, stream=HELD_OUT_STREAM)
    pixels = to_pixels(torch.from_numpy(stills.pixels), mean=shipped.mean, std=shipped.std)
    with torch.inference_mode():
        scores = shipped.visual(pixels) @ space.categories.T
    right = np.mean(scores.argmax(1).numpy() == stills.actions)
    assert right > 0.5  # chance is 1/16


def test_unpack_restores_packed_weights(tmp_path: Path) -> None:
    folder = packed_clip.unpack_tiny_clip(tmp_path / "first")
    weights = load_file(folder / "open_clip_model.safetensors")
    used = weights["token_embedding.weight"].abs().sum(dim=1).nonzero().flatten()
    assert 50 < len(used) < 2000
    out = tmp_path / "packed.safetensors"
    assert packed_clip.pack_tiny_clip(folder, used, out=out) < 2 << 20
    packed, shipped = load_file(out), load_file(packed_clip.PACKED_FILE)
    assert packed.keys() == shipped.keys()
    for name in packed.keys() - {"token_embedding.weight", "token_embedding.used_rows"}:
        assert torch.equal(packed[name], shipped[name])
