"""The one way to configure a run: YAML, dotted overrides, strict validation, a frozen object.

`load_config(path, overrides)` serves the command line, jobs and tests alike. A resolved
configuration, dumped, is itself valid input.
"""

from lssl_ray.config.loading import dump_config, flatten_config, load_config, load_config_text
from lssl_ray.config.schema import RunConfig

__all__ = ["RunConfig", "dump_config", "flatten_config", "load_config", "load_config_text"]
