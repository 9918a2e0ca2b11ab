"""Passwords have no place in a configuration: it is filed with the run, in MLflow and in logs."""

import re
from typing import Any

_PASSWORD = re.compile(r"://[^/\s@:]*:[^/\s@]+@")


def has_password(uri: str) -> bool:
    """Whether a URI holds a password: `scheme://user:password@host`."""
    return _PASSWORD.search(uri) is not None


def find_passwords(settings: Any, key: str = "", *, within: tuple[int, ...] = ()) -> list[str]:
    """Dotted keys of the values that hold one, anywhere in nested plain data."""
    children: dict[Any, Any]
    if id(settings) in within:  # YAML can put a list into itself; validation refuses that
        return []
    if isinstance(settings, dict):
        children = settings
    elif isinstance(settings, list):
        children = dict(enumerate(settings))
    else:
        return [key] if isinstance(settings, str) and has_password(settings) else []
    return [
        found
        for name, value in children.items()
        for found in find_passwords(
            value, f"{key}.{name}" if key else str(name), within=(*within, id(settings))
        )
    ]
