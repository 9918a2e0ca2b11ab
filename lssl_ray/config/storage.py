"""Which URIs a run may be kept behind."""

from urllib.parse import urlsplit

_READ_ONLY = frozenset({"http", "https"})
_BUCKETS = frozenset({"s3", "gs", "gcs"})


def find_impossible_storage(storage: str | None) -> list[str]:
    """What is wrong with `run.storage`: `key: rule; remedy`. The URI itself may hold a secret.

    Args:
        storage: As given.
    """
    if storage is None:
        return []
    parts = urlsplit(storage)
    if "://" not in storage or len(parts.scheme) < 2:  # a letter is a Windows drive to libraries
        return [
            f"run.storage: {storage} is no URI; give s3://BUCKET/FOLDER, gs://, file:///, or for a "
            "folder that all nodes mount leave it out and set run.folder"
        ]
    if parts.scheme.lower() in _READ_ONLY:
        return ["run.storage: a web server takes no files; give s3://BUCKET/FOLDER, gs://, ..."]
    # A bucket's name has no '@', and a key may hold the slash that ends what urlsplit looks at.
    if parts.password is not None or (parts.scheme.lower() in _BUCKETS and "@" in storage):
        return [
            "run.storage: the URI holds a password or key, and would be saved with the run; leave "
            "it out and set the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS) or the machine's role (IAM)"
        ]
    if parts.query and parts.scheme.lower() != "file":
        return [
            "run.storage: the URI holds options after '?'; leave them out, region and server are "
            "taken from the environment (AWS_REGION, AWS_ENDPOINT_URL)"
        ]
    return []
