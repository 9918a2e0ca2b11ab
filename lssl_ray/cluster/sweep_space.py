"""Space files: what a sweep varies, read from Python, and checked before anything starts.

A space file states a question and says what is drawn; it starts nothing. It is Python and is run
when it is read: only your own files should be.
"""

import importlib.util
import inspect
import itertools
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lssl_ray.cluster.samplers import find_sampler_problem, list_values
from lssl_ray.cluster.space_problems import USER_ERRORS, find_value_problems
from lssl_ray.errors import ConfigError

Derive = Callable[[dict[str, Any]], dict[str, Any]]

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
_OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class SweepSpace:
    """What a sweep varies.

    Attributes:
        name: The file's, without its ending.
        question: What the sweep answers: the first paragraph of the file's docstring.
        samplers: Ray Tune samplers by dotted setting, or by a name of the space's own, which
            has no dot and means something to `derive` only.
        derive: From all drawn values to further settings; None when the drawn ones are all.
        description: The file's whole docstring.
    """

    name: str
    question: str
    samplers: dict[str, Any]
    derive: Derive | None = None
    description: str = ""

    def compute_settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What drawn values mean: dotted setting to plain value, for `build_overrides`.

        Args:
            values: One value for every sampler.
        """
        settings = {key: value for key, value in values.items() if "." in key}
        return settings if self.derive is None else settings | self.derive(dict(values))


def load_space(path: Path) -> SweepSpace:
    """Read a space file: a docstring, `build_space()`, and `derive_settings(values)` if needed.

    Args:
        path: `tune_spaces/NAME.py`; its code is run.

    Raises:
        ConfigError: Missing, no Python, without question or `build_space`, or its code fails.
    """
    if not path.is_file() or path.suffix != ".py" or not _FILE_NAME.fullmatch(path.stem):
        raise ConfigError(
            f"The space {path} must be a Python file that is there, named by letters, digits, - "
            "and _, such as tune_spaces/temperatures.py."
        )
    module = _run(path)
    description = inspect.cleandoc(module.__doc__ or "")
    question = " ".join(description.partition("\n\n")[0].split())
    if "?" not in question:
        raise ConfigError(
            f"The space {path} must begin with a docstring whose first paragraph asks the question "
            f"that it answers, with a question mark; it says {question!r}."
        )
    build, derive = (getattr(module, name, None) for name in ("build_space", "derive_settings"))
    if not callable(build) or not (derive is None or callable(derive)):
        raise ConfigError(
            f"The space {path} must define build_space(), which returns samplers by setting; "
            "derive_settings(values), if it is there, must be a function, too."
        )
    try:
        samplers = build()
    except USER_ERRORS as error:
        raise ConfigError(f"build_space() of {path} fails {_locate(error, path)}.") from error
    if not isinstance(samplers, dict) or not samplers:
        raise ConfigError(
            f"build_space() of {path} returned {samplers!r}; it must return at least one sampler "
            'as {"section.key": tune.uniform(...)}.'
        )
    return SweepSpace(
        name=path.stem,
        question=question,
        samplers=samplers,
        derive=derive,
        description=description,
    )


def check_space(space: SweepSpace, *, config: Path | None, overrides: Sequence[str] = ()) -> None:
    """Refuse a space of which a trial could fail for its settings, before any trial starts.

    Every listed value and both ends of every range go through `load_config`: all combinations
    where they are at most 200, else each value beside the first ones of the others. Ranges and
    larger products are also sampled 100 times, always the same way.

    Args:
        space: As loaded.
        config: The recipe that all trials share; None for the defaults.
        overrides: `dotted.key=value` over the recipe.

    Raises:
        ConfigError: All problems at once, one per line: key, value, rule, remedy.
    """
    problems = []
    sound = {}
    for key, sampler in space.samplers.items():
        problem = _find_key_problem(key, space) or find_sampler_problem(sampler)
        if problem is None:
            sound[key] = sampler
        else:
            problems.append(f"{key}: {problem}")
    complete = not problems
    problems += find_value_problems(
        sound if complete else {key: value for key, value in sound.items() if "." in key},
        # Without all its values a function of them says nothing.
        compute_settings=space.compute_settings if complete else dict,
        config=config,
        overrides=overrides,
    )
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        plural = "s" if len(problems) > 1 else ""
        raise ConfigError(f"{len(problems)} problem{plural} in the space {space.name}:\n{listed}")


def list_grid(space: SweepSpace) -> list[dict[str, Any]]:
    """Every combination of a checked space's values, the last sampler changing fastest.

    Raises:
        ConfigError: A range has no end of values.
    """
    columns = {key: list_values(sampler) for key, sampler in space.samplers.items()}
    endless = [key for key, values in columns.items() if values is None]
    if endless:
        raise ConfigError(
            f"The space {space.name} can't be searched as a grid: {', '.join(endless)} can take "
            "too many values; list some in tune.choice, or use --search random or optuna."
        )
    rows = itertools.product(*(values or [] for values in columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _find_key_problem(key: Any, space: SweepSpace) -> str | None:
    if not isinstance(key, str):
        return "keys must be texts, such as objective.weight_align"
    if "." in key:
        return None
    if not _OWN_NAME.fullmatch(key):
        return "a name of the space's own must be of letters, digits and _"
    if space.derive is None:
        return (
            "has no dot, so it is no setting; write section.key, or define "
            "derive_settings(values), which says what settings it stands for"
        )
    return None


def _run(path: Path) -> ModuleType:
    # Not in sys.modules: Ray then sends its functions by value, to nodes without the file.
    spec = importlib.util.spec_from_file_location(f"lssl_space_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"The space {path} is no Python file; name it NAME.py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except USER_ERRORS as error:
        raise ConfigError(f"The space {path} can't be run, {_locate(error, path)}.") from error
    return module


def _locate(error: BaseException, path: Path) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    where = f"in line {lines[-1]}" if lines else "as it was read"
    return f"{where}: {type(error).__name__}: {error}"
