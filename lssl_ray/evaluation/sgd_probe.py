"""SVT's linear layer: SGD with momentum, its learning rate chosen on held-out training videos.

`linear_probe` is what evaluations call; no test video comes here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lssl_ray.evaluation.probe_choice import Choice, Trial, assign_folds, choose


@dataclass(frozen=True)
class SgdSettings:
    """SVT's linear probe: SGD with momentum 0.9, no weight decay, cosine to 0.

    Attributes:
        learning_rates: Tried on held-out training videos; one value is taken as it is.
        num_epochs: Passes over the training split.
        batch_size: Videos per step.
        num_folds: One part in so many of the training split is held out for the choice.
        seed: Of the initial weights, the order of the videos, and what is held out.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
    num_epochs: int = 100
    batch_size: int = 256
    num_folds: int = 5
    seed: int = 0


def choose_learning_rate(
    features: Float[Tensor, "train dim"],
    *,
    targets: Int64[Tensor, "train"],
    num_labels: int,
    settings: SgdSettings,
) -> Choice:
    """The learning rate that does best on a held-out part of the training split.

    Raises:
        DataError: Nothing can be held out.
    """
    if len(settings.learning_rates) == 1:
        return Choice("learning_rate", settings.learning_rates[0], "given", ())
    folds = assign_folds(targets.numpy(), num_folds=settings.num_folds, seed=settings.seed)
    held_out = torch.from_numpy(folds == 0)
    trials = []
    for rate in settings.learning_rates:
        layer = train_layer(
            features[~held_out],
            targets=targets[~held_out],
            num_labels=num_labels,
            learning_rate=rate,
            settings=settings,
        )
        with torch.no_grad():
            scores = layer(features[held_out].float())
        trials.append(
            Trial(
                value=rate,
                accuracy=(scores.argmax(dim=1) == targets[held_out]).double().mean().item(),
                loss=F.cross_entropy(scores, targets[held_out]).item(),
            )
        )
    method = (
        f"best accuracy on {int(held_out.sum())} held-out videos of the training split's "
        f"{len(targets)}, then trained on all of them; the test split took no part"
    )
    return choose("learning_rate", trials, method=method)


def train_layer(
    features: Float[Tensor, "train dim"],
    *,
    targets: Int64[Tensor, "train"],
    num_labels: int,
    learning_rate: float,
    settings: SgdSettings,
) -> nn.Linear:
    """Train a linear layer from small random weights; torch's global generator is not used."""
    generator = torch.Generator().manual_seed(settings.seed)
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, features.shape[1], num_labels)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=learning_rate, momentum=0.9)
    num_steps = settings.num_epochs * -(-len(targets) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_steps)
    features = features.float()
    for _ in range(settings.num_epochs):
        order = torch.randperm(len(targets), generator=generator)
        for rows in order.split(settings.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(layer(features[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    return layer
