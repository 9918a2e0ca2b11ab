"""`RayEngine`: a run's heavy work on Ray."""

from lssl_ray.cluster.features import extract_features_on_ray
from lssl_ray.cluster.required_paths import require_feature_paths, require_training_paths
from lssl_ray.cluster.session import start_ray, stop_ray
from lssl_ray.cluster.train import train_on_ray
from lssl_ray.config import RunConfig
from lssl_ray.engine import FeatureJob, OnFeatures, TrainJob
from lssl_ray.evaluation.features import FeatureTable
from lssl_ray.types import Progress


class RayEngine:
    """Starts or joins Ray when made; see `engine.Engine`."""

    def __init__(self, config: RunConfig) -> None:
        start_ray(config)

    def train(self, job: TrainJob) -> Progress:
        """Train on Ray Train workers fed by Ray Data."""
        require_training_paths(job)
        return train_on_ray(job)

    def extract_features(
        self, job: FeatureJob, *, on_progress: OnFeatures | None = None
    ) -> FeatureTable:
        """Decode and encode through Ray Data."""
        require_feature_paths(job)
        return extract_features_on_ray(job, on_progress=on_progress)

    def close(self) -> None:
        """Leave Ray."""
        stop_ray()
