"""What would go wrong in a sweep's trials: every value through the configuration's own checks.

Only settings are tried: no manifest is read, no CLIP is loaded. Label files and vocabularies are,
because a vocabulary that doesn't exist is what a space over concept spaces gets wrong.
"""

import copy
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lssl_ray.cluster.samplers import list_bounds, list_values
from lssl_ray.concepts.bank import load_labels
from lssl_ray.config.loading import apply_override, load_settings, validate_config
from lssl_ray.errors import ConfigError, DataError
from lssl_ray.sweep.trials import build_overrides, format_value

MAX_PRODUCT = 200
NUM_SAMPLES = 100
MAX_ALIKE, MAX_GIVEN = 20, 5

Values = dict[str, Any]
ComputeSettings = Callable[[Mapping[str, Any]], dict[str, Any]]

# What code in a space file may raise, by mistake or by Tune's own refusals.
USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    SyntaxError,
    TypeError,
    ValueError,
)

# What trials must share, and why.
SHARED = {
    "run": "names, seeds and the rhythm of rows belong to the sweep; use --name, --seeds, --set",
    "tracking": "all trials report to one store; set it in the recipe or with --set",
    "cluster": "what a trial takes of the cluster is reckoned once for all; use --set",
    "evaluation": "scores would not mean the same in every trial; set it in the recipe",
    "data.manifest": "scores would be of other videos; sweep each manifest by itself",
    "data.split": "scores would be of other videos; sweep each split by itself",
    "data.hold_back": "scores would be of other videos; use --hold-back for all trials",
}

_GIVEN, _NUMBERS = re.compile(r" \(got (.*)\)$"), re.compile(r"-?\d[\d.e+-]*")

# `a.b.c=1` where the recipe's a.b is a number.
_OVERRIDE = re.compile(r"^Override (['\"])(?P<key>[^=]+)=(?P<value>.*)\1: (?P<rule>.*)\.$")
_NO_SECTION = r"\g<key>: \g<rule>; give the recipe a schedule there (got \g<value>)"


def find_value_problems(
    samplers: Mapping[str, Any],
    *,
    compute_settings: ComputeSettings,
    config: Path | None,
    overrides: Sequence[str],
) -> list[str]:
    """Problems that some drawn values would lead to, each once, with the values that do.

    Args:
        samplers: Sound ones, by key.
        compute_settings: What drawn values mean.
        config: The recipe; None for the defaults.
        overrides: `dotted.key=value` over the recipe.
    """
    listed, sampled = _list_candidates(samplers), _draw_candidates(samplers)
    candidates = listed + sampled
    inspector = _Inspector(compute_settings, config=config, overrides=overrides)
    base = inspector.check_settings({})
    found: dict[str, _Found] = {}
    alike: Counter[str] = Counter()
    for index, values in enumerate(candidates):
        for line in dict.fromkeys(inspector.check_values(values)):
            text, given = _split_given(line)
            if text not in found:
                # Of what only a random draw found, one example says it.
                alike[shape := _NUMBERS.sub("#", text)] += 1
                if alike[shape] > (MAX_ALIKE if index < len(listed) else 1):
                    continue
                found[text] = _Found()
            found[text].hits.append(index)
            known = found[text].given
            if given is not None and given not in known and (index < len(listed) or not known):
                known.append(given)
    in_recipe = [text for text in found if any(line.startswith(text) for line in base)]
    return [
        text
        + _list_given(found[text].given)
        + _blame(text, found[text], candidates, in_recipe=text in in_recipe)
        for text in [*in_recipe, *(text for text in found if text not in in_recipe)]
    ]


@dataclass
class _Found:
    """Where a problem shows: candidates by number, and the values that the line ends with."""

    hits: list[int] = field(default_factory=list)
    given: list[str] = field(default_factory=list)


class _Inspector:
    """Says what is wrong with the configuration that some values come to."""

    def __init__(
        self, compute_settings: ComputeSettings, *, config: Path | None, overrides: Sequence[str]
    ) -> None:
        self._compute_settings = compute_settings
        self._base = load_settings(config, overrides)
        self._fixed = [override.partition("=")[0] for override in overrides]
        self._find_label_problem = cache(_find_label_problem)

    def check_values(self, values: Values) -> list[str]:
        """Problems of drawn values."""
        try:
            settings = self._compute_settings(values)
            build_overrides(settings)
        except USER_ERRORS as error:
            return [f"derive_settings fails: {type(error).__name__}: {error}"]
        problems = [
            f"{key}: derive_settings changes what is drawn; let it set other keys, or give the "
            "sampler a name of its own, without a dot"
            for key, value in values.items()
            if "." in key and settings.get(key) != value
        ]
        for key in settings:
            problems += self._check_key(key)
        return problems + self.check_settings(settings)

    def check_settings(self, settings: Mapping[str, Any]) -> list[str]:
        """Problems of settings over the recipe."""
        data = copy.deepcopy(self._base)
        try:
            for override in build_overrides(settings):
                apply_override(data, override)
        except ConfigError as error:
            return [_OVERRIDE.sub(_NO_SECTION, str(error))]
        return self._check_configuration(data) + self._check_labels(data.get("concepts"))

    def _check_configuration(self, data: dict[str, Any]) -> list[str]:
        try:
            validate_config(data)
        except ConfigError as error:
            first, *lines = str(error).splitlines()
            return [line.strip() for line in lines] or [first]
        return []

    def _check_labels(self, concepts: Any) -> list[str]:
        labels = concepts.get("labels") if isinstance(concepts, dict) else None
        if not isinstance(labels, str):
            return []
        needs_descriptions = concepts.get("spaces") != "category"
        problem = self._find_label_problem(labels, needs_descriptions=needs_descriptions)
        return [problem] if problem else []

    def _check_key(self, key: str) -> list[str]:
        problems = [
            f"{key}: a sweep can't vary {name}: {reason}"
            for name, reason in SHARED.items()
            if f"{key}.".startswith(f"{name}.")
        ]
        problems += [
            f"{key}: both the space and --set {fixed} give it; leave out one of the two"
            for fixed in self._fixed
            if f"{fixed}.".startswith(f"{key}.")
        ]
        return problems


def _list_candidates(samplers: Mapping[str, Any]) -> list[Values]:
    """All combinations of values and bounds, or each one beside the first ones of the others."""
    columns = {key: list_values(item) or list_bounds(item) for key, item in samplers.items()}
    if math.prod(len(column) for column in columns.values()) <= MAX_PRODUCT:
        rows = itertools.product(*columns.values())
        return [dict(zip(columns, row, strict=True)) for row in rows]
    first = {key: column[0] for key, column in columns.items()}
    others = [first | {key: value} for key, column in columns.items() for value in column[1:]]
    return [first, *others]


def _draw_candidates(samplers: Mapping[str, Any]) -> list[Values]:
    """Random values, the same ones every time; none where all combinations are listed."""
    columns = [list_values(item) for item in samplers.values()]
    if math.prod(math.inf if column is None else len(column) for column in columns) <= MAX_PRODUCT:
        return []
    random = np.random.default_rng(0)
    return [
        {key: item.sample(random_state=random) for key, item in samplers.items()}
        for _ in range(NUM_SAMPLES)
    ]


def _split_given(line: str) -> tuple[str, str | None]:
    """A problem's rule, and the value that breaks it."""
    match = _GIVEN.search(line)
    return (line[: match.start()], match.group(1)) if match else (line, None)


def _list_given(given: Sequence[str]) -> str:
    if not given:
        return ""
    more = f" and {len(given) - MAX_GIVEN} more" if len(given) > MAX_GIVEN else ""
    return f" (got {', '.join(given[:MAX_GIVEN])}{more})"


def _blame(text: str, told: _Found, candidates: Sequence[Values], *, in_recipe: bool) -> str:
    """Which drawn values lead to a problem, where the line doesn't say it."""
    if len(told.hits) == len(candidates):
        return " (in the recipe itself)" if in_recipe else ""
    if told.given and text.partition(":")[0] in candidates[0]:
        return ""
    bad = set(told.hits)
    example = candidates[told.hits[0]]
    for key, value in example.items():
        if all(index in bad for index, row in enumerate(candidates) if row[key] == value):
            return f" (with {key}={format_value(value)})"
    return f" (for example with {_format(example)})"


def _find_label_problem(labels: str, *, needs_descriptions: bool) -> str | None:
    try:
        vocabulary = load_labels(labels)
    except (ConfigError, DataError) as error:
        return f"concepts.labels: {error}"
    if needs_descriptions and not vocabulary.has_descriptions:
        return (
            f"concepts.labels: {labels} has no descriptions; describe the labels, or set "
            "concepts.spaces=category"
        )
    return None


def _format(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={format_value(value)}" for key, value in values.items())
