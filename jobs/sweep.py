"""Run or resume a sweep: the entry point for `ray job submit`.

    ray job submit --working-dir . -- python jobs/sweep.py --space tune_spaces/NAME.py \
        --config jobs/recipes/NAME.yaml --trials 20 --set cluster.address=auto

The same code path as `lssl-ray sweep`.
"""

import typer

from lssl_ray.cli_sweep import sweep

if __name__ == "__main__":
    typer.run(sweep)
