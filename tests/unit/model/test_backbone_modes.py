"""The encoder's settings: CLS handling, temporal init, freezing, memory saving, compilation."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from lssl_ray import build
from lssl_ray.config import RunConfig
from lssl_ray.errors import ConfigError
from lssl_ray.model.clip import ClipModel
from lssl_ray.model.freezing import freeze_encoder
from lssl_ray.model.space_time import ClsHandling, SpaceTimeBlock, VideoEncoder
from lssl_ray.model.teacher import build_teacher
from lssl_ray.training.optimizer import build_optimizer, set_rates

MODES: tuple[ClsHandling, ...] = ("per_frame", "shared")


@pytest.fixture
def visual(tiny_clip: ClipModel) -> VisionTransformer:
    assert isinstance(tiny_clip.visual, VisionTransformer)
    return tiny_clip.visual


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perturb_temporal(encoder: VideoEncoder) -> VideoEncoder:
    with torch.no_grad():
        for number, (name, parameter) in enumerate(encoder.named_parameters()):
            if "temporal" in name:
                parameter.add_(0.2 * draw(*parameter.shape, seed=number))
    return encoder


@torch.no_grad()
def test_shared_cls_on_equal_frames_equals_clip(visual: VisionTransformer) -> None:
    encoder = VideoEncoder(visual, num_frames=2, cls="shared")
    images = draw(3, 3, 32, 32)
    expected = F.normalize(visual(images), dim=-1)
    for num_frames in (1, 2, 5):
        clips = images[:, None].expand(-1, num_frames, -1, -1, -1)
        torch.testing.assert_close(encoder(clips), expected, rtol=0, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-2


@torch.no_grad()
def test_shared_cls_on_moving_frames_is_no_frame_average(visual: VisionTransformer) -> None:
    pixels = draw(2, 3, 3, 32, 32)
    features = [VideoEncoder(visual, num_frames=3, cls=cls)(pixels) for cls in MODES]
    assert (features[0] - features[1]).abs().max() > 1e-3


def run_shared_reference(
    block: SpaceTimeBlock, original: nn.Module, cls: Tensor, patches: Tensor
) -> tuple[Tensor, Tensor]:
    """One clip through a block: nn.MultiheadAttention over time, open_clip's parts over space."""
    width = cls.shape[-1]
    time = nn.MultiheadAttention(width, block.temporal_attn.num_heads, batch_first=True)
    time.load_state_dict(block.temporal_attn.state_dict())
    mixed = patches.clone()
    for position in range(patches.shape[1]):
        sequence = block.temporal_norm(patches[:, position])[None]  # [1, T, D]
        mixed[:, position] += block.temporal_out(time(sequence, sequence, sequence)[0][0])
    parts: Any = original
    residuals = []
    for frame in mixed:
        tokens = parts.ln_1(torch.cat([cls[None], frame]))[None]  # [1, N, D]
        residuals.append(parts.attention(tokens)[0])
    cls = cls + torch.stack([residual[0] for residual in residuals]).mean(dim=0)
    patches = mixed + torch.stack([residual[1:] for residual in residuals])
    return (
        cls + parts.mlp(parts.ln_2(cls)),
        patches + parts.mlp(parts.ln_2(patches)),
    )


@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_shared_cls_block_equals_reference(visual: VisionTransformer, layer: int) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2, cls="shared"))
    block = encoder.blocks[layer]
    cls, patches = draw(2, 1, tiny.WIDTH, seed=1), draw(2, 3, 4, tiny.WIDTH, seed=2)
    new_cls, new_patches = block.forward_shared(cls, patches)
    for clip in range(2):
        expected = run_shared_reference(
            block, visual.transformer.resblocks[layer], cls[clip, 0], patches[clip]
        )
        torch.testing.assert_close(new_cls[clip, 0], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(new_patches[clip], expected[1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shared_cls_takes_no_temporal_embedding(visual: VisionTransformer) -> None:
    encoder = VideoEncoder(visual, num_frames=2, cls="shared")
    seen: list[Tensor] = []
    hook = encoder.blocks[0].ln_1.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    pixels = draw(1, 1, 3, 32, 32).expand(-1, 2, -1, -1, -1)
    encoder(pixels)
    encoder.temporal_embedding.add_(1.0)
    encoder(pixels)
    hook.remove()
    plain, moved = seen
    assert torch.equal(plain[:, 0], moved[:, 0])
    torch.testing.assert_close(moved[:, 1:], plain[:, 1:] + 1.0)


@pytest.mark.parametrize("cls", MODES)
@pytest.mark.parametrize(("num_frames", "size"), [(1, 32), (5, 16), (3, 48)])
@torch.no_grad()
def test_encoder_takes_other_frame_counts_and_sizes(
    visual: VisionTransformer, cls: ClsHandling, num_frames: int, size: int
) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2, cls=cls))
    pixels = draw(2, num_frames, 3, size, size)
    assert encoder(pixels).norm(dim=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert encoder.encode_pooled(pixels).shape == (2, tiny.WIDTH)


@torch.no_grad()
def test_encode_pooled_is_what_is_projected(visual: VisionTransformer) -> None:
    pixels = draw(2, 3, 3, 32, 32)
    shared = perturb_temporal(VideoEncoder(visual, num_frames=3, cls="shared"))
    projected = F.normalize(shared.encode_pooled(pixels) @ shared.proj, dim=-1)
    torch.testing.assert_close(projected, shared(pixels), rtol=0, atol=1e-6)
    # Per frame it is the mean over frames of what CLIP projects, one frame at a time.
    plain = copy.deepcopy(visual)
    plain.proj = None
    expected = torch.stack([plain(clip).mean(dim=0) for clip in pixels])
    per_frame = VideoEncoder(visual, num_frames=3).encode_pooled(pixels)
    torch.testing.assert_close(per_frame, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cls", MODES)
@torch.no_grad()
def test_random_temporal_init_differs_by_seed_and_leaves_features(
    visual: VisionTransformer, cls: ClsHandling
) -> None:
    def build_random(seed: int) -> VideoEncoder:
        torch.manual_seed(seed)
        return VideoEncoder(visual, num_frames=3, cls=cls, temporal_init="random")

    encoder, again, other = build_random(1), build_random(1), build_random(2)
    names = [name for name, _ in encoder.named_parameters()]
    assert all(torch.equal(encoder.state_dict()[n], again.state_dict()[n]) for n in names)
    first, second = (e.blocks[0].temporal_attn.in_proj_weight for e in (encoder, other))
    assert not torch.equal(first, second)
    assert not torch.equal(first, encoder.blocks[0].attn.in_proj_weight)
    assert first.std().item() == pytest.approx(tiny.WIDTH**-0.5, rel=0.2)
    assert (encoder.blocks[1].temporal_norm.weight == 1).all()
    assert not encoder.blocks[1].temporal_norm.bias.any()
    assert not encoder.blocks[1].temporal_out.weight.any()
    pixels = draw(2, 3, 3, 32, 32)
    expected = VideoEncoder(visual, num_frames=3, cls=cls)(pixels)
    torch.testing.assert_close(encoder(pixels), expected, rtol=0, atol=1e-6)


def train_once(encoder: VideoEncoder) -> set[str]:
    """Names of the parameters that one optimiser step moves."""
    before = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    optimizer = build_optimizer(encoder, betas=(0.9, 0.999))
    set_rates(optimizer, learning_rates={"pretrained": 0.1, "temporal": 0.1}, weight_decay=0.1)
    encoder(draw(2, 2, 3, 32, 32))[:, 0].sum().backward()
    optimizer.step()
    return {
        n for n, parameter in encoder.named_parameters() if not torch.equal(parameter, before[n])
    }


@pytest.mark.parametrize("cls", MODES)
def test_every_parameter_trains_when_nothing_is_frozen(
    visual: VisionTransformer, cls: ClsHandling
) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2, cls=cls))
    freeze_encoder(encoder, spatial=False, num_blocks=0)
    assert train_once(encoder) == {name for name, _ in encoder.named_parameters()}


@pytest.mark.parametrize("cls", MODES)
def test_freeze_spatial_trains_what_time_added(visual: VisionTransformer, cls: ClsHandling) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2, cls=cls))
    clip_names = set(visual.state_dict())
    freeze_encoder(encoder, spatial=True, num_blocks=0)
    assert train_once(encoder) == {name for name, _ in encoder.named_parameters()} - clip_names


def test_freeze_blocks_keeps_stem_and_first_blocks(visual: VisionTransformer) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2))
    freeze_encoder(encoder, spatial=False, num_blocks=1)
    moved = train_once(encoder)
    block = {name for name, _ in encoder.named_parameters() if ".resblocks.1." in name}
    assert moved == block | {"ln_post.weight", "ln_post.bias", "proj"}
    assert any("temporal" in name for name in moved)


def test_freeze_blocks_and_spatial_together(visual: VisionTransformer) -> None:
    encoder = perturb_temporal(VideoEncoder(visual, num_frames=2))
    freeze_encoder(encoder, spatial=True, num_blocks=1)
    moved = train_once(encoder)
    assert moved and all(".resblocks.1.temporal_" in name for name in moved)


@pytest.mark.parametrize(("spatial", "num_blocks"), [(False, 3), (True, 3), (True, 2), (False, -1)])
def test_freeze_encoder_impossible_is_refused(
    visual: VisionTransformer, spatial: bool, num_blocks: int
) -> None:
    with pytest.raises(ConfigError, match="2 blocks"):
        freeze_encoder(VideoEncoder(visual, num_frames=2), spatial=spatial, num_blocks=num_blocks)


@pytest.mark.parametrize("cls", MODES)
@pytest.mark.parametrize("num_blocks", [0, 1])
def test_activation_checkpointing_gives_equal_gradients(
    visual: VisionTransformer, cls: ClsHandling, num_blocks: int
) -> None:
    gradients, saved = [], []
    for checkpointing in (False, True):
        encoder = perturb_temporal(
            VideoEncoder(visual, num_frames=2, cls=cls, activation_checkpointing=checkpointing)
        ).train()
        freeze_encoder(encoder, spatial=False, num_blocks=num_blocks)
        sizes: list[int] = []

        def keep(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = encoder(draw(2, 3, 3, 32, 32))[:, 0].sum()
        saved.append(sum(sizes))
        loss.backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=0, atol=1e-6)
    assert saved[1] < saved[0] / 2


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo's own, where a graph resumes
@pytest.mark.parametrize("cls", MODES)
def test_compiled_encoder_keeps_blocks_in_one_graph_and_names(
    visual: VisionTransformer, cls: ClsHandling
) -> None:
    plain = perturb_temporal(VideoEncoder(visual, num_frames=2, cls=cls))
    compiled = copy.deepcopy(plain)
    graphs = CompileCounter()
    compiled.compile(backend=graphs)
    pixels = draw(2, 2, 3, 32, 32)
    torch.testing.assert_close(compiled(pixels), plain(pixels), rtol=0, atol=1e-6)
    assert graphs.frame_count == 2  # all blocks together, and the projection
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert list(build_teacher(compiled).state_dict()) == list(plain.state_dict())


def test_build_encoder_follows_the_configuration(
    build_config: Callable[..., RunConfig], tiny_clip: ClipModel
) -> None:
    config = build_config(
        "model.cls=shared", "model.temporal_init=random", "model.freeze_blocks=1",
        "model.activation_checkpointing=true",
    )  # fmt: skip
    encoder = build.build_encoder(config, tiny_clip)
    assert encoder.cls == "shared" and encoder.activation_checkpointing
    block = encoder.blocks[0]
    assert not torch.equal(block.temporal_attn.in_proj_weight, block.attn.in_proj_weight)
    assert not any(p.requires_grad for p in block.parameters())
    assert all(p.requires_grad for p in encoder.blocks[1].parameters())
    with pytest.raises(ConfigError, match="2 blocks"):
        build.build_encoder(build_config("model.freeze_blocks=12"), tiny_clip)
