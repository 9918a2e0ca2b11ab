"""The video encoder against open_clip itself and against nn.MultiheadAttention."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from lssl_ray.errors import CheckpointError
from lssl_ray.model.clip import ClipModel, load_clip
from lssl_ray.model.space_time import (
    SpaceTimeBlock,
    VideoEncoder,
    interpolate_positions,
    interpolate_times,
    is_temporal,
    load_image_weights,
)


@pytest.fixture
def visual(tiny_clip: ClipModel) -> VisionTransformer:
    assert isinstance(tiny_clip.visual, VisionTransformer)
    return tiny_clip.visual


def draw_pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perturb_temporal(encoder: VideoEncoder) -> VideoEncoder:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "temporal" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return encoder


def average_frames(visual: VisionTransformer, pixels: Tensor) -> Tensor:
    """Frame-averaged CLIP, one frame at a time through open_clip's own forward."""
    features = []
    for clip in pixels:
        frames = [visual(frame[None])[0] for frame in clip]
        mean = torch.stack([frame / frame.norm() for frame in frames]).mean(dim=0)
        features.append(mean / mean.norm())
    return torch.stack(features)


def compute_cubic_weights(num_in: int, num_out: int) -> NDArray[np.float64]:
    """Cubic convolution (a = -0.75), half-pixel centres, edges repeated: [num_out, num_in]."""

    def kernel(x: float) -> float:
        a, x = -0.75, abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = np.zeros((num_out, num_in))
    for i in range(num_out):
        centre = (i + 0.5) * num_in / num_out - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(tap, 0), num_in - 1)] += kernel(centre - tap)
    return weights


def resize_positions(positions: Tensor, height: int, width: int) -> Tensor:
    side = math.isqrt(len(positions) - 1)
    grid = positions[1:].double().numpy().reshape(side, side, -1)
    over_rows = np.einsum("ih,hwd->iwd", compute_cubic_weights(side, height), grid)
    resized = np.einsum("jw,iwd->ijd", compute_cubic_weights(side, width), over_rows)
    rows = torch.from_numpy(resized.reshape(height * width, -1)).float()
    return torch.cat([positions[:1], rows])


@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_video_encoder_at_initialisation_equals_frame_averaged_clip(
    tmp_path: Path, num_frames: int, quick_gelu: bool
) -> None:
    folder = tiny.write_tiny_clip(tmp_path, quick_gelu=quick_gelu)
    visual = load_clip(f"local-dir:{folder}", weights=None).visual
    assert isinstance(visual, VisionTransformer)
    pixels = draw_pixels(3, num_frames, 3, 32, 32)
    with torch.no_grad():
        features = VideoEncoder(visual, num_frames=2)(pixels)
        expected = average_frames(visual, pixels)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    # The clips differ by far more than the tolerance, or equality would mean nothing.
    assert (expected[0] - expected[1]).abs().max() > 1e-2


def test_video_encoder_quick_gelu_changes_features(tmp_path: Path) -> None:
    pixels = draw_pixels(1, 2, 3, 32, 32)
    features = []
    for quick_gelu in (False, True):
        folder = tiny.write_tiny_clip(tmp_path / str(quick_gelu), quick_gelu=quick_gelu)
        visual = load_clip(f"local-dir:{folder}", weights=None).visual
        assert isinstance(visual, VisionTransformer)
        features.append(VideoEncoder(visual, num_frames=2)(pixels))
    assert (features[0] - features[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 48), (16, 24)])
def test_video_encoder_other_view_size_equals_clip_with_resized_positions(
    visual: VisionTransformer, height: int, width: int
) -> None:
    resized = copy.deepcopy(visual)
    resized.positional_embedding = nn.Parameter(
        resize_positions(visual.positional_embedding, height // 8, width // 8)
    )
    pixels = draw_pixels(2, 3, 3, height, width)
    with torch.no_grad():
        features = VideoEncoder(visual, num_frames=3)(pixels)
        expected = average_frames(resized, pixels)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_interpolate_positions_own_grid_is_untouched(visual: VisionTransformer) -> None:
    positions = visual.positional_embedding
    assert torch.equal(interpolate_positions(positions, (4, 4)), positions)


def test_video_encoder_leaves_the_given_tower_as_it_was(visual: VisionTransformer) -> None:
    before = {name: value.clone() for name, value in visual.state_dict().items()}
    encoder = VideoEncoder(visual, num_frames=2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in visual.state_dict().items())


def test_video_encoder_features_have_unit_length(visual: VisionTransformer) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2))
    features = encoder(draw_pixels(3, 4, 3, 32, 32))
    assert features.shape == (3, encoder.embedding_dim) == (3, tiny.EMBEDDING)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def run_reference_block(block: SpaceTimeBlock, original: nn.Module, x: Tensor) -> Tensor:
    """Time by nn.MultiheadAttention, one token position at a time; then open_clip's block."""
    width = x.shape[-1]
    reference = nn.MultiheadAttention(width, block.temporal_attn.num_heads, batch_first=True)
    reference.load_state_dict(block.temporal_attn.state_dict())
    mixed = x.clone()
    for clip in range(x.shape[0]):
        for token in range(x.shape[2]):
            sequence = x[clip, :, token][None]  # [1, T, D]
            deviation = sequence - sequence.mean(-1, keepdim=True)
            scale = (deviation.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            norm = block.temporal_norm
            normed = deviation / scale * norm.weight + norm.bias
            attended, _ = reference(normed, normed, normed)
            out = attended @ block.temporal_out.weight.T + block.temporal_out.bias
            mixed[clip, :, token] += out[0]
    return torch.stack([original(clip) for clip in mixed])


@pytest.mark.parametrize("layer", [0, 1])
def test_space_time_block_equals_multihead_attention_reference(
    visual: VisionTransformer, layer: int
) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2))
    block = encoder.transformer.resblocks[layer]
    assert isinstance(block, SpaceTimeBlock)
    x = draw_pixels(2, 3, 5, tiny.WIDTH)
    with torch.no_grad():
        expected = run_reference_block(block, visual.transformer.resblocks[layer], x)
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
        untouched = torch.stack([visual.transformer.resblocks[layer](clip) for clip in x])
        assert (expected - untouched).abs().max() > 1e-2


def test_space_time_block_starts_time_as_copy_of_space(visual: VisionTransformer) -> None:
    for block in VideoEncoder(visual, num_frames=2).transformer.resblocks:
        assert isinstance(block, SpaceTimeBlock)
        pairs = (block.temporal_attn, block.attn), (block.temporal_norm, block.ln_1)
        for temporal, spatial in pairs:
            for name, value in temporal.state_dict().items():
                assert torch.equal(value, spatial.state_dict()[name])
                assert value.data_ptr() != spatial.state_dict()[name].data_ptr()
        assert not block.temporal_out.weight.any() and not block.temporal_out.bias.any()


def test_video_encoder_frame_order_matters_only_with_temporal_weights(
    visual: VisionTransformer,
) -> None:
    encoder = VideoEncoder(visual, num_frames=4)
    pixels = draw_pixels(2, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), encoder(pixels.flip(1)), rtol=0, atol=1e-6)
        perturb_temporal(encoder)
        assert (encoder(pixels) - encoder(pixels.flip(1))).abs().max() > 1e-3


def test_interpolate_times_keeps_ends_and_is_linear() -> None:
    embedding = draw_pixels(4, 8)
    longer = interpolate_times(embedding, 7)
    torch.testing.assert_close(longer[[0, -1]], embedding[[0, -1]])
    torch.testing.assert_close(longer[::2], embedding)
    torch.testing.assert_close(longer[1::2], (embedding[:-1] + embedding[1:]) / 2)
    shorter = interpolate_times(embedding, 2)
    torch.testing.assert_close(shorter, embedding[[0, -1]])
    assert torch.equal(interpolate_times(embedding, 4), embedding)


def test_video_encoder_initialises_and_trains_every_parameter(visual: VisionTransformer) -> None:
    encoder = VideoEncoder(visual, num_frames=2)
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    perturb_temporal(encoder)
    encoder(draw_pixels(2, 2, 3, 32, 32))[:, 0].sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_video_encoder_keeps_clip_parameters_by_name(visual: VisionTransformer) -> None:
    encoder = VideoEncoder(visual, num_frames=2)
    kept = {n: v for n, v in encoder.state_dict().items() if not is_temporal(n)}
    expected = visual.state_dict()
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_load_image_weights_wrong_weights_are_refused(
    visual: VisionTransformer, change: str
) -> None:
    weights = dict(visual.state_dict())
    if change == "missing":
        del weights["transformer.resblocks.1.mlp.c_fc.bias"]
    elif change == "unexpected":
        weights["transformer.resblocks.2.ln_1.bias"] = torch.zeros(tiny.WIDTH)
    else:
        weights["proj"] = torch.zeros(tiny.WIDTH, tiny.EMBEDDING + 1)
    with pytest.raises(CheckpointError):
        load_image_weights(VideoEncoder(visual, num_frames=2), weights)


@pytest.mark.parametrize(("height", "width"), [(30, 32), (32, 36)])
def test_video_encoder_view_that_patches_do_not_divide_is_refused(
    visual: VisionTransformer, height: int, width: int
) -> None:
    with pytest.raises(ValueError, match=f"{height}x{width}"):
        VideoEncoder(visual, num_frames=2)(draw_pixels(1, 1, 3, height, width))


def test_video_encoder_double_precision_stays_double(visual: VisionTransformer) -> None:
    encoder = VideoEncoder(visual, num_frames=2).double()
    pixels = draw_pixels(1, 2, 3, 32, 32)
    features = encoder(pixels.double())
    assert features.dtype == torch.float64
    torch.testing.assert_close(
        features.float(), VideoEncoder(visual, num_frames=2)(pixels), rtol=0, atol=1e-5
    )


def test_video_encoder_bf16_towers_give_float32_unit_features(visual: VisionTransformer) -> None:
    encoder = VideoEncoder(visual, num_frames=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(draw_pixels(2, 2, 3, 32, 32))
    assert features.dtype == torch.float32
    torch.testing.assert_close(F.normalize(features, dim=-1), features, rtol=0, atol=1e-6)
