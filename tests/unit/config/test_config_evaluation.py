"""Settings of evaluation beside training: what can't go together is refused, with the remedy."""

from collections.abc import Callable

import pytest

from lssl_ray.config import RunConfig
from lssl_ray.errors import ConfigError

BuildConfig = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.best=validation/test/knn"], ["evaluation.every_checkpoints"]),
        (
            ["evaluation.every_checkpoints=1", "evaluation.best=validation/other/knn"],
            ["validation/test/zero_shot", "validation/test/knn"],
        ),
        (
            ["evaluation.every_checkpoints=1", "evaluation.best=zero_shot"],
            ["validation/test/zero_shot"],
        ),
        (
            ["evaluation.every_checkpoints=1", "evaluation.best=held_back/balance"],
            ["data.hold_back"],
        ),
        (
            ["evaluation.every_checkpoints=1", "evaluation.manifests={}"],
            ["evaluation.manifests", "data.hold_back"],
        ),
        (["evaluation.every_checkpoints=-1"], ["evaluation.every_checkpoints"]),
        (["data.hold_back=-1"], ["data.hold_back"]),
    ],
)
def test_config_of_evaluations_that_can_not_be_is_refused(
    build_config: BuildConfig, overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(*overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["evaluation.best=validation/test/knn"],
        ["evaluation.best=held_back/balance", "data.hold_back=2"],
        ["evaluation.manifests={}", "data.hold_back=2"],
    ],
)
def test_config_of_evaluations_that_go_together_is_taken(
    build_config: BuildConfig, overrides: list[str]
) -> None:
    assert build_config("evaluation.every_checkpoints=2", *overrides).evaluation.every_checkpoints


def test_config_without_evaluation_beside_training_is_the_default(
    build_config: BuildConfig,
) -> None:
    config = build_config()
    assert (config.evaluation.every_checkpoints, config.evaluation.best) == (0, None)
    assert config.data.hold_back == 0
