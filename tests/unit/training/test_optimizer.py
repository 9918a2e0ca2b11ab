"""The optimiser: who is in which group, and AdamW's arithmetic redone by hand."""

import math

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from lssl_ray.model.clip import ClipModel
from lssl_ray.model.space_time import VideoEncoder
from lssl_ray.training.optimizer import build_optimizer, compute_gradient_norms, set_rates


@pytest.fixture
def encoder(tiny_clip: ClipModel) -> VideoEncoder:
    assert isinstance(tiny_clip.visual, VisionTransformer)
    return VideoEncoder(tiny_clip.visual, num_frames=2)


def name_groups(
    encoder: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, list[tuple[str, bool]]]:
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    found: dict[str, list[tuple[str, bool]]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found.setdefault(names[id(parameter)], []).append((group["name"], group["decays"]))
    return found


def test_build_optimizer_holds_every_parameter_exactly_once(encoder: VideoEncoder) -> None:
    found = name_groups(encoder, build_optimizer(encoder, betas=(0.9, 0.999)))
    assert found.keys() == dict(encoder.named_parameters()).keys()
    assert all(len(places) == 1 for places in found.values())


def test_build_optimizer_groups_and_decay_follow_the_method(encoder: VideoEncoder) -> None:
    found = name_groups(encoder, build_optimizer(encoder, betas=(0.9, 0.999)))
    decaying = {name for name, [(_, decays)] in found.items() if decays}
    blocks = [f"transformer.resblocks.{layer}." for layer in (0, 1)]
    matrices = (
        "attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight",
        "temporal_attn.in_proj_weight", "temporal_attn.out_proj.weight", "temporal_out.weight",
    )  # fmt: skip
    expected = {block + matrix for block in blocks for matrix in matrices}
    assert decaying == expected | {"conv1.weight", "proj"}
    temporal = {name for name, [(group, _)] in found.items() if group == "temporal"}
    assert temporal == {name for name in found if "temporal" in name}
    assert "temporal_embedding" in temporal


def test_build_optimizer_leaves_frozen_parameters_out(encoder: VideoEncoder) -> None:
    encoder.conv1.requires_grad_(False)
    found = name_groups(encoder, build_optimizer(encoder, betas=(0.9, 0.999)))
    assert "conv1.weight" not in found and "proj" in found


def test_set_rates_go_by_group_and_decay_only_where_it_belongs(encoder: VideoEncoder) -> None:
    optimizer = build_optimizer(encoder, betas=(0.9, 0.999))
    set_rates(optimizer, learning_rates={"pretrained": 0.1, "temporal": 1.0}, weight_decay=0.3)
    settings = {
        (group["name"], group["decays"]): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    }
    assert settings == {
        ("pretrained", True): (0.1, 0.3),
        ("pretrained", False): (0.1, 0.0),
        ("temporal", True): (1.0, 0.3),
        ("temporal", False): (1.0, 0.0),
    }


def run_adamw_by_hand(
    weight: float, gradients: list[float], *, rates: list[float], decays: list[float]
) -> float:
    first = second = 0.0
    for step, (gradient, rate, decay) in enumerate(
        zip(gradients, rates, decays, strict=True), start=1
    ):
        weight *= 1 - rate * decay
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        denominator = math.sqrt(second / (1 - 0.999**step)) + 1e-8
        weight -= rate * (first / (1 - 0.9**step)) / denominator
    return weight


def test_build_optimizer_steps_equal_adamw_by_hand_in_every_group() -> None:
    module = nn.Module()
    module.plain = nn.Linear(2, 2, dtype=torch.float64)
    module.temporal_out = nn.Linear(2, 2, dtype=torch.float64)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = build_optimizer(module, betas=(0.9, 0.999))
    rates, decays = [1e-2, 5e-3, 2e-2], [0.1, 0.2, 0.3]
    gradients = {
        name: [torch.full_like(p, value).addcmul(p, p) for value in (0.5, -1.0, 2.0)]
        for name, p in before.items()
    }
    for step in range(3):
        for name, parameter in module.named_parameters():
            parameter.grad = gradients[name][step].clone()
        pair = {"pretrained": rates[step], "temporal": 10 * rates[step]}
        set_rates(optimizer, learning_rates=pair, weight_decay=decays[step])
        optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 10 if "temporal" in name else 1
        expected = [
            run_adamw_by_hand(
                value.item(),
                [gradient.flatten()[i].item() for gradient in gradients[name]],
                rates=[factor * rate for rate in rates],
                decays=decays if name.endswith("weight") else [0.0] * 3,
            )
            for i, value in enumerate(before[name].flatten())
        ]
        assert parameter.flatten().tolist() == pytest.approx(expected, rel=1e-9), name


def test_compute_gradient_norms_are_euclidean_per_group() -> None:
    module = nn.Module()
    module.plain = nn.Linear(2, 1)
    module.temporal_out = nn.Linear(1, 1)
    optimizer = build_optimizer(module, betas=(0.9, 0.999))
    module.plain.weight.grad = torch.tensor([[3.0, 4.0]])
    module.plain.bias.grad = torch.tensor([12.0])
    module.temporal_out.weight.grad = torch.tensor([[2.0]])
    norms = compute_gradient_norms(optimizer)
    assert {name: norm.item() for name, norm in norms.items()} == pytest.approx(
        {"pretrained": 13.0, "temporal": 2.0}
    )


def test_compute_gradient_norms_group_without_gradient_is_zero() -> None:
    module = nn.Module()
    module.plain = nn.Linear(2, 1)
    module.temporal_out = nn.Linear(1, 1)
    optimizer = build_optimizer(module, betas=(0.9, 0.999))
    module.plain.weight.grad = torch.tensor([[3.0, 4.0]])
    norms = compute_gradient_norms(optimizer)
    assert {name: norm.item() for name, norm in norms.items()} == {"pretrained": 5, "temporal": 0}
