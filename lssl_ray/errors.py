"""Errors that a user can act on: each message names the value, the rule and the way out."""


class LsslError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(LsslError):
    """A setting is unknown, of the wrong type, or impossible together with another."""


class DataError(LsslError):
    """Videos, manifests or label files are not what they should be."""


class CheckpointError(LsslError):
    """A checkpoint or run folder can't be written, found, trusted or matched."""


class TrainingError(LsslError):
    """Training can't go on: a non-finite loss or gradient, no usable clip."""


class ClusterError(LsslError):
    """Ray can't give what the run needs."""
