"""Reading, overriding, checking and writing configurations, with errors a person can act on."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from lssl_ray.config.cluster import NUMBER, RANGE
from lssl_ray.config.objective import CONSTANT, SCHEDULE
from lssl_ray.config.passwords import find_passwords
from lssl_ray.config.schema import RunConfig
from lssl_ray.errors import ConfigError


def load_config(source: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe, apply `a.b=value` overrides, validate.

    Args:
        source: YAML file; None starts from the defaults.
        overrides: `dotted.key=value`, the value as YAML.

    Raises:
        ConfigError: All problems at once, one per line: key, rule, remedy.
    """
    return validate_config(load_settings(source, overrides))


def load_settings(source: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe with its overrides as nested plain data, for `validate_config`.

    Args:
        source: YAML file; None starts from the defaults.
        overrides: `dotted.key=value`, the value as YAML.

    Raises:
        ConfigError: A file that can't be read or is no mapping, or an override that is none.
    """
    data: Any = {}
    if source is not None:
        try:
            data = yaml.load(source.read_text(encoding="utf-8"), Loader=_Loader) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Configuration {source} can't be read: {error}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"Configuration {source} is not valid YAML: {error}.") from error
        if not isinstance(data, dict):
            raise ConfigError(f"Configuration {source} must be a mapping of sections.")
    for override in overrides:
        apply_override(data, override)
    return dict(data)


def load_config_text(text: str) -> RunConfig:
    """A configuration from the YAML text that `dump_config` wrote."""
    return validate_config(yaml.load(text, Loader=_Loader))


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key in nested mappings, in place.

    Raises:
        ConfigError: Not of the form `a.b=value`.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"Override {override!r} must be of the form section.key=value.")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"Override {override!r}: the value is not valid YAML: {error}") from error
    *parents, last = key.split(".")
    for parent in parents:
        child = data.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"Override {override!r}: {parent} is a value, not a section.")
        data = child
    data[last] = value


def validate_config(data: dict[str, Any]) -> RunConfig:
    """Nested plain data to a frozen configuration.

    Raises:
        ConfigError: All problems at once; a password alone, and without what it is.
    """
    if keys := find_passwords(data):
        raise ConfigError(
            f"{', '.join(keys)}: a URI with a password in it; configurations are filed with runs, "
            "in MLflow and in logs. Take user and password out; they are read from the environment "
            "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, PGPASSWORD, ~/.netrc), or from the machine's role (IAM)."
        )
    # A section that isn't there is empty, so that the fields it lacks are named.
    sections: dict[str, Any] = {
        name: {} for name, field in RunConfig.model_fields.items() if field.is_required()
    }
    try:
        # JSON mode: lists become tuples, yet 8.0 is no integer and "1" no number.
        return RunConfig.model_validate_json(json.dumps(sections | data))
    except ValidationError as error:
        lines = _describe(error)
        lines += _describe_combinations(sections | data, error, told=lines)
        plural = "s" if len(lines) > 1 else ""
        listed = "\n".join(f"  {line}" for line in lines)
        raise ConfigError(
            f"{len(lines)} problem{plural} in the configuration:\n{listed}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The configuration holds a value YAML can't mean: {error}.") from error


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML that `load_config` takes."""
    data = config.model_dump(mode="json", by_alias=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flatten_config(config: RunConfig) -> dict[str, Any]:
    """Dotted key to value, for tracking."""

    def flatten(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict) and value:
            merged: dict[str, Any] = {}
            for key, child in value.items():
                merged |= flatten(f"{prefix}.{key}" if prefix else key, child)
            return merged
        return {prefix: value}

    return flatten("", config.model_dump(mode="json", by_alias=True))


def describe_schema() -> str:
    """Every setting, one per line: dotted key, default, meaning."""
    lines: list[str] = []

    def describe(prefix: str, model: Any) -> None:
        for name, field in model.model_fields.items():
            key = f"{prefix}{field.alias or name}"
            if hasattr(field.annotation, "model_fields"):
                describe(f"{key}.", field.annotation)
            else:
                default = "required" if field.is_required() else json.dumps(field.default)
                lines.append(f"{key}  [{default}]  {field.description}")

    describe("", RunConfig)
    return "\n".join(lines) + "\n"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number, as people mean it (YAML 1.1 wants 1.0e-3).

    Dates are texts, and keys are texts, each once: `on:` would be True, a second one would win.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, when its keys are what they look like."""
        keys = [
            self.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
            for key, _ in node.value
            if key.tag != "tag:yaml.org,2002:merge"
        ]
        wrong = [key for key in keys if not isinstance(key, str) or keys.count(key) > 1]
        if wrong:
            raise yaml.constructor.ConstructorError(
                problem=f"keys must be texts, each there once, but found {wrong}; quote names "
                "that YAML reads as numbers or truth values",
                problem_mark=node.start_mark,
            )
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as something else, such as a run named 1e3."""


# Stands for a missing path or name; a local CLIP asks for nothing else.
_PLACEHOLDER = "local-dir:missing"
_FLOAT, _TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] != _TIMESTAMP]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789."))
_Dumper.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789."))


def _describe(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in _locate(item["loc"]))
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggest(_locate(item['loc']))}")
        elif item["type"] == "missing" and isinstance(item["loc"][-1], int):
            lines.append(f"{key.rpartition('.')[0]}: too few values (got {item['input']!r})")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing; set it in the recipe or with --set {key}=...")
        elif item["type"] == "value_error":
            lines.extend(str(item["ctx"]["error"]).splitlines())
        else:
            lines.append(f"{key}: {item['msg']} (got {item['input']!r})")
    return lines


def _describe_combinations(
    data: dict[str, Any], error: ValidationError, *, told: Sequence[str]
) -> list[str]:
    """Impossible combinations among the valid fields.

    They are only looked for once every field is valid, so the invalid ones step aside for their
    defaults; what a combination says of such a field is not worth telling.
    """
    rest = json.loads(json.dumps(data))
    wrong = []
    for item in error.errors():
        path = [str(part) for part in _locate(item["loc"]) if isinstance(part, str)]
        if not path:
            return []
        wrong.append(".".join(path))
        section = rest
        for part in path[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.pop(path[-1], None)
            if item["type"] == "missing":
                section[path[-1]] = _PLACEHOLDER
    try:
        RunConfig.model_validate_json(json.dumps(rest))
    except ValidationError as second:
        lines = [line for line in _describe(second) if line not in told]
        return [line for line in lines if not any(key in line for key in wrong)]
    return []


def _locate(location: Sequence[int | str]) -> list[int | str]:
    """Where a value is for a person, who wrote a number, a range or a schedule and no tag."""
    return [part for part in location if part not in (CONSTANT, SCHEDULE, NUMBER, RANGE)]


def _suggest(location: Sequence[int | str]) -> str:
    model: Any = RunConfig
    for part in location[:-1]:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        kind = fields[str(part)].annotation
        # Of a number or a schedule, only the schedule has keys.
        kinds = [get_args(member)[0] for member in get_args(kind)] or [kind]
        model = next(member for member in kinds if hasattr(member, "model_fields"))
    known = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{meant or ';'} known here: {', '.join(known)}"
