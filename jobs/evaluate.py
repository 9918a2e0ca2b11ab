"""Evaluate a run on labelled videos: the entry point for `ray job submit`.

    ray job submit --working-dir . -- python jobs/evaluate.py /shared/runs/NAME \
        /shared/heldout.parquet --set cluster.address=auto

The same code path as `lssl-ray evaluate`.
"""

import typer

from lssl_ray.cli_evaluate import evaluate

if __name__ == "__main__":
    typer.run(evaluate)
