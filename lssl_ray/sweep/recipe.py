"""The best configuration as a recipe: a YAML file that `lssl-ray train --config` takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lssl_ray.config import RunConfig, dump_config
from lssl_ray.config.loading import apply_override, validate_config
from lssl_ray.sweep.trials import build_overrides
from lssl_ray.whole_files import write_whole


def write_best_recipe(
    base: RunConfig, values: Mapping[str, Any], path: Path, *, header: Sequence[str] = ()
) -> RunConfig:
    """Write a sweep's base configuration with the best trial's settings in it.

    Args:
        base: What all trials share.
        values: Dotted setting to value, as `SweepSpace.compute_settings` gives them.
        path: The YAML file; replaced when it is there.
        header: Lines of comment at its top: which sweep, trial and score.

    Returns:
        The configuration that the file holds.

    Raises:
        ConfigError: The values don't fit the base.
    """
    # Only what was set: a default may depend on a value, as the prototypes' temperatures do.
    data = base.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for override in build_overrides(values):
        apply_override(data, override)
    config = validate_config(data)
    lines = [line for text in header for line in text.splitlines() or [""]]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, comment + dump_config(config))
    return config
