"""Where a sweep's configurations come from: a grid, random draws, or Optuna's TPE.

Grid and random draws are all made before the first trial. Optuna learns from what is done; what it
knew is told again when a sweep goes on, so nothing of it is kept in files.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Categorical

from lssl_ray.cluster.sweep_space import SweepSpace, list_grid
from lssl_ray.errors import ConfigError
from lssl_ray.sweep.trials import Search

Values = dict[str, Any]

# A space of few values runs out of new ones; so many draws in a row then say that it did.
MAX_REPEATS = 200
_SCORE = "score"


class Source(Protocol):
    """Gives one configuration after the other."""

    def draw(self) -> Values | None:
        """The next one; None when there is no further one."""

    def count_left(self) -> int:
        """How many are still to come."""

    def tell(self, values: Values, score: float) -> None:
        """What a configuration came to, higher is better."""


class ListedSource:
    """Configurations that are known beforehand.

    Args:
        configurations: In the order to run them.
    """

    def __init__(self, configurations: Sequence[Values]) -> None:
        self._left = list(configurations)

    def draw(self) -> Values | None:
        """The next one of the list."""
        return self._left.pop(0) if self._left else None

    def count_left(self) -> int:
        """The rest of the list."""
        return len(self._left)

    def tell(self, values: Values, score: float) -> None:
        """Nothing is learned."""


class OptunaSource:
    """Draws near what did well (Optuna's TPE), random at first.

    Args:
        space: As checked.
        num_configurations: To draw in all.
        num_drawn: Drawn before, in earlier sessions of the sweep.
        seed: Of the draws.
    """

    def __init__(
        self, space: SweepSpace, *, num_configurations: int, num_drawn: int, seed: int
    ) -> None:
        self._samplers = space.samplers
        self._num_left = num_configurations - num_drawn
        self._num_asked = num_drawn
        # Optuna takes no lists and mappings as categories: they go by number.
        converted = {
            key: tune.choice(list(range(len(sampler.categories))))
            if isinstance(sampler, Categorical)
            else sampler
            for key, sampler in space.samplers.items()
        }
        self._search = OptunaSearch(
            space=OptunaSearch.convert_search_space(converted),
            metric=_SCORE,
            mode="max",
            # With the same seed again, a sweep that goes on would repeat its random draws.
            seed=seed + num_drawn,
        )

    def draw(self) -> Values | None:
        """Ask Optuna."""
        if self._num_left <= 0:
            return None
        self._num_left -= 1
        self._num_asked += 1
        params = self._search.suggest(str(self._num_asked)) or {}
        return {
            key: sampler.categories[params[key]]
            if isinstance(sampler, Categorical)
            else to_plain(params[key])
            for key, sampler in self._samplers.items()
        }

    def count_left(self) -> int:
        """Up to the number that was asked for."""
        return max(0, self._num_left)

    def tell(self, values: Values, score: float) -> None:
        """Add what is known to Optuna's study."""
        params = {
            key: _find_number(sampler, values[key])
            if isinstance(sampler, Categorical)
            else values[key]
            for key, sampler in self._samplers.items()
        }
        self._search.add_evaluated_point(params, score)


def open_source(
    space: SweepSpace, *, search: Search, num_configurations: int | None, num_drawn: int, seed: int
) -> Source:
    """What draws a sweep's further configurations.

    Args:
        space: As checked.
        search: How to draw.
        num_configurations: In all; None for a whole grid.
        num_drawn: Drawn before, in earlier sessions of the sweep.
        seed: Of the draws.

    Raises:
        ConfigError: The number does not fit the search.
    """
    if search == "grid":
        return ListedSource(_list_whole_grid(space, num_configurations)[num_drawn:])
    if num_configurations is None:
        raise ConfigError(f"--search {search} needs --trials N: how many configurations to draw.")
    if search == "random":
        drawn = draw_random(space, num_configurations=num_configurations, seed=seed)
        return ListedSource(drawn[num_drawn:])
    return OptunaSource(
        space, num_configurations=num_configurations, num_drawn=num_drawn, seed=seed
    )


def draw_random(space: SweepSpace, *, num_configurations: int, seed: int) -> list[Values]:
    """Different configurations, the same ones for a seed; fewer when the space has no more."""
    random = np.random.default_rng(seed)
    drawn: list[Values] = []
    repeats = 0
    while len(drawn) < num_configurations and repeats < MAX_REPEATS:
        values = {
            key: to_plain(sampler.sample(random_state=random))
            for key, sampler in space.samplers.items()
        }
        if values in drawn:
            repeats += 1
        else:
            repeats = 0
            drawn.append(values)
    return drawn


def to_plain(value: Any) -> Any:
    """A drawn value as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _list_whole_grid(space: SweepSpace, num_configurations: int | None) -> list[Values]:
    grid = list_grid(space)
    if num_configurations is not None and num_configurations < len(grid):
        raise ConfigError(
            f"The grid of {space.name} has {len(grid)} configurations; --trials "
            f"{num_configurations} would leave out its end. Leave --trials out, or draw: --search "
            "random."
        )
    return [{key: to_plain(value) for key, value in values.items()} for values in grid]


def _find_number(sampler: Categorical, value: Any) -> int:
    """Which category a value is; a list read back from a file is the tuple that it was."""
    texts = [json.dumps(category, sort_keys=True) for category in sampler.categories]
    return texts.index(json.dumps(value, sort_keys=True))
