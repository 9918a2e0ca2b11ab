"""The baseline's head: cosines with learned rows."""

import torch
import torch.nn.functional as F

from lssl_ray.model.prototype_head import PrototypeHead


def build_head() -> PrototypeHead:
    torch.manual_seed(0)
    return PrototypeHead(16, hidden=12, num_prototypes=9, bottleneck=5)


def draw_features() -> torch.Tensor:
    return F.normalize(torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_prototype_head_scores_are_cosines_of_a_three_layer_mlp() -> None:
    head, features = build_head(), draw_features()
    layers = [head.mlp[index] for index in (0, 2, 4)]
    x = features
    for number, layer in enumerate(layers):
        x = x @ layer.weight.T + layer.bias
        x = F.gelu(x) if number < 2 else x
    expected = F.cosine_similarity(x[:, :, None], head.prototypes[None, None], dim=-1)
    torch.testing.assert_close(head(features), expected)
    assert head(features).shape == (3, 4, 9)


def test_prototype_head_length_of_prototypes_does_not_matter() -> None:
    head, features = build_head(), draw_features()
    before = head(features)
    with torch.no_grad():
        head.prototypes.mul_(torch.linspace(0.1, 10, 9)[:, None])
    torch.testing.assert_close(head(features), before)


def test_prototype_head_under_autocast_stays_in_float32() -> None:
    head, features = build_head(), draw_features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(features)
    assert torch.equal(scores, head(features))


def test_prototype_head_is_random_by_the_seed() -> None:
    first, second = build_head(), build_head()
    weights = first.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in second.state_dict().items())
    scores = first(draw_features())
    assert scores.std(dim=(0, 1)).min() > 0  # different clips differ on every prototype
