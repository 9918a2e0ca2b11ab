"""Weights on the line between CLIP and an adapted encoder, of the real encoder."""

from collections.abc import Callable

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from lssl_ray.errors import CheckpointError, ConfigError
from lssl_ray.evaluation.interpolation import interpolate_weights
from lssl_ray.model.clip import ClipModel
from lssl_ray.model.space_time import VideoEncoder

Weights = dict[str, Tensor]


@pytest.fixture
def build_encoder(tiny_clip: ClipModel) -> Callable[[], VideoEncoder]:
    visual = tiny_clip.visual
    assert isinstance(visual, VisionTransformer)
    return lambda: VideoEncoder(visual, num_frames=2).eval().requires_grad_(False)


@pytest.fixture
def clip(build_encoder: Callable[[], VideoEncoder]) -> Weights:
    return build_encoder().state_dict()


@pytest.fixture
def adapted(build_encoder: Callable[[], VideoEncoder]) -> Weights:
    encoder = build_encoder()
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return encoder.state_dict()


def encode(build_encoder: Callable[[], VideoEncoder], weights: Weights) -> Tensor:
    encoder = build_encoder()
    encoder.load_state_dict(weights)
    pixels = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    features: Tensor = encoder(pixels)
    return features


@pytest.mark.parametrize("alpha", [0, 1])
def test_interpolate_weights_ends_are_bitwise(
    build_encoder: Callable[[], VideoEncoder], clip: Weights, adapted: Weights, alpha: int
) -> None:
    mixed = interpolate_weights(clip, adapted, alpha=float(alpha))
    end = (clip, adapted)[alpha]
    assert list(mixed) == list(end)
    assert all(torch.equal(mixed[name], end[name]) for name in end)
    assert torch.equal(encode(build_encoder, mixed), encode(build_encoder, end))


def test_interpolate_weights_zero_does_not_share_memory(clip: Weights, adapted: Weights) -> None:
    before = clip["proj"].clone()
    interpolate_weights(clip, adapted, alpha=0.0)["proj"].zero_()
    assert torch.equal(clip["proj"], before)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_interpolate_weights_between_equals_the_formula(
    build_encoder: Callable[[], VideoEncoder], clip: Weights, adapted: Weights, alpha: float
) -> None:
    mixed = interpolate_weights(clip, adapted, alpha=alpha)
    for name, value in mixed.items():
        expected = alpha * adapted[name].double() + (1 - alpha) * clip[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
    features = encode(build_encoder, mixed)
    for end in (clip, adapted):
        assert (features - encode(build_encoder, end)).abs().max() > 1e-4


def test_interpolate_weights_temporal_output_scales_from_zero(
    clip: Weights, adapted: Weights
) -> None:
    name = "transformer.resblocks.1.temporal_out.weight"
    assert not clip[name].any()
    mixed = interpolate_weights(clip, adapted, alpha=0.5)
    torch.testing.assert_close(mixed[name], adapted[name] / 2)


def test_interpolate_weights_half_precision_is_mixed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1000, generator=generator).bfloat16()
    mixed = interpolate_weights({"weight": first}, {"weight": second}, alpha=0.3)["weight"]
    expected = (0.3 * second.float() + 0.7 * first.float()).bfloat16()
    assert torch.equal(mixed, expected)
    assert not torch.equal(0.3 * second + 0.7 * first, expected)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_interpolate_weights_alpha_outside_its_range_is_refused(
    clip: Weights, adapted: Weights, alpha: float
) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        interpolate_weights(clip, adapted, alpha=alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_interpolate_weights_other_names_are_refused(
    clip: Weights, adapted: Weights, alpha: float
) -> None:
    adapted["extra.weight"] = adapted.pop("ln_post.weight")
    with pytest.raises(CheckpointError, match=r"ln_post\.weight.*extra\.weight"):
        interpolate_weights(clip, adapted, alpha=alpha)


def test_interpolate_weights_other_shapes_are_refused(clip: Weights, adapted: Weights) -> None:
    adapted["temporal_embedding"] = torch.zeros(8, 32)
    with pytest.raises(CheckpointError, match=r"temporal_embedding \(2, 32\).*\(8, 32\)"):
        interpolate_weights(clip, adapted, alpha=0.5)


def test_interpolate_weights_counters_that_differ_are_refused() -> None:
    first, second = {"steps": torch.tensor([1])}, {"steps": torch.tensor([2])}
    with pytest.raises(CheckpointError, match="steps"):
        interpolate_weights(first, second, alpha=0.5)
    assert interpolate_weights(first, first, alpha=0.5)["steps"].tolist() == [1]
