"""Runs kept behind a URI: `run.storage`."""

from lssl_ray.storage.store import RunStore, open_run_store

__all__ = ["RunStore", "open_run_store"]
