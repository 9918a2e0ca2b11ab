"""The decode child on a machine that has PyAV only."""

import sys

for name in ("decord", "torchcodec"):
    sys.modules[name] = None  # type: ignore[assignment]  # what an absent package looks like

from lssl_ray.video.decode_child import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
