"""What torch sees of GPUs, as one line of JSON: run as `python -m lssl_ray.doctor.gpu_child`.

A process of its own: a driver that is broken can hang or end whoever asks it.
"""

import ctypes
import json
import sys
from typing import Any

import torch


def describe_gpus() -> dict[str, Any]:
    """The fields of `gpus.GpuFacts`."""
    facts: dict[str, Any] = {
        "names": [],
        "torch_cuda": torch.version.cuda,
        "driver_cuda": read_driver_cuda(),
        "has_bf16": False,
        "problem": None,
    }
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
        facts["names"] = [torch.cuda.get_device_name(number) for number in range(count)]
        capabilities = [torch.cuda.get_device_capability(number) for number in range(count)]
        facts["has_bf16"] = bool(count) and min(capabilities) >= (8, 0)
    except (AssertionError, RuntimeError) as error:
        facts["problem"] = str(error).strip().splitlines()[0]
    return facts


def read_driver_cuda() -> str | None:
    """The newest CUDA that the driver can do, as `12.4`; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe_gpus()))
