"""Train or resume a run: the entry point for `ray job submit`.

    ray job submit --working-dir . -- python jobs/train.py --config jobs/recipes/NAME.yaml

The same code path as `lssl-ray train`; on a cluster set cluster.address=auto.
"""

import typer

from lssl_ray.cli import train

if __name__ == "__main__":
    typer.run(train)
