"""The least a configuration must hold, for the tests beside."""

from pathlib import Path
from typing import Any

import yaml

REQUIRED: dict[str, Any] = {
    "clip": {"model": "local-dir:clip"},
    "data": {"manifest": "clips.parquet"},
    "concepts": {"labels": "labels.yaml"},
}


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(REQUIRED) + text)
    return path
