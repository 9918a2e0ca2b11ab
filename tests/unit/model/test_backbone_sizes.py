"""ViT-B-32, ViT-B-16 and ViT-L-14 in full size, from files in the formats they are published in."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from weight_files import WRITERS, Tensors, draw_tensors, read_shapes

from lssl_ray.model.clip import load_clip
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.model.weights import load_clip_weights


@pytest.fixture(scope="module")
def base() -> Tensors:
    """ViT-B-16's weights."""
    return draw_tensors(read_shapes("ViT-B-16"))


@pytest.mark.parametrize("layout", WRITERS)
def test_load_clip_weights_reads_full_size_of_every_layout(
    base: Tensors, layout: str, tmp_path: Path
) -> None:
    path = WRITERS[layout](base, tmp_path)
    found = load_clip_weights(path).tensors
    path.unlink()
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], base[name]) for name in base)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("ViT-B-32", "archive"), ("ViT-B-16", "hugging_face"), ("ViT-L-14", "safetensors")],
)
@torch.no_grad()
def test_backbone_from_file_starts_as_clip(name: str, layout: str, tmp_path: Path) -> None:
    source = draw_tensors(read_shapes(name))
    path = WRITERS[layout](source, tmp_path)
    visual = load_clip(name, weights=str(path)).visual
    path.unlink()
    assert isinstance(visual, VisionTransformer)
    for key, value in visual.state_dict().items():
        assert torch.equal(value, source[f"visual.{key}"].float()), key

    pixels = torch.randn(1, 2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    frames = F.normalize(visual(pixels[0]), dim=1)  # by open_clip's own forward
    average = F.normalize(frames.mean(dim=0, keepdim=True), dim=1)
    encoder = VideoEncoder(visual, num_frames=2)
    torch.testing.assert_close(encoder(pixels), average, rtol=0, atol=1e-5)
    # The two frames differ by far more than the tolerance, or equality would mean little.
    assert (frames[0] - frames[1]).abs().max() > 1e-3
    if name == "ViT-L-14":  # the rest does not depend on size, and takes half a minute here
        return
    encoder.cls = "shared"
    still = pixels[:, :1].expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(encoder(still), frames[:1], rtol=0, atol=1e-5)
    side = 5 * encoder.patch_size
    other = encoder(pixels[:, [0, 1, 0], :, :side, :side])
    torch.testing.assert_close(other.norm(), torch.tensor(1.0))
