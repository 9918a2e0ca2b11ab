"""AdamW with two learning rates, and weight decay only where it belongs."""

import itertools

import torch
from torch import nn

from lssl_ray.model.space_time import is_temporal

NO_DECAY_NAMES = ("class_embedding", "positional_embedding", "temporal_embedding")


def build_optimizer(
    encoder: nn.Module, *, head: nn.Module | None = None, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """Parameter groups `pretrained`, `temporal` and `head`, with and without weight decay.

    Biases, norms and embeddings (everything below two axes, and the named embeddings) are not
    decayed. Learning rates and decay are set per step by `set_rates`.
    """
    places = [
        ("temporal" if is_temporal(key) else "pretrained", _decays(key, parameter), parameter)
        for key, parameter in encoder.named_parameters()
    ]
    if head is not None:
        places += [("head", _decays(key, value), value) for key, value in head.named_parameters()]
    groups = []
    for place in itertools.product(("pretrained", "temporal", "head"), (True, False)):
        members = [value for *at, value in places if tuple(at) == place and value.requires_grad]
        if members:
            groups.append({"params": members, "name": place[0], "decays": place[1]})
    # One kernel for all parameters, where there is one: on a CPU a third of foreach's time.
    kinds = {parameter.device.type for *_, parameter in places}
    kernel = {"fused": True} if kinds <= {"cpu", "cuda"} else {"foreach": True}
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, weight_decay=0.0, **kernel)


def set_rates(
    optimizer: torch.optim.Optimizer, *, learning_rates: dict[str, float], weight_decay: float
) -> None:
    """Give each group its learning rate by name, and the decaying ones their weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rates[group["name"]]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def compute_gradient_norms(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Euclidean gradient norm per named group."""
    by_name: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        gradients = (p.grad for p in group["params"] if p.grad is not None)
        by_name.setdefault(group["name"], []).extend(gradients)
    return {name: _total_norm(gradients) for name, gradients in by_name.items()}


def _total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    if not gradients:
        return torch.zeros(())
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def _decays(key: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and key.rsplit(".", 1)[-1] not in NO_DECAY_NAMES
