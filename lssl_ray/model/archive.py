"""OpenAI's TorchScript archives (`ViT-B-16.pt`) as tensors by name, running none of their code.

An archive is a zip: `data.pkl` describes the module tree, `data/` holds the values, `code/` the
program. Only the first two are read here, and the pickle can name nothing but what is listed
below: no function of the archive, of torch or of Python is looked up for it.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LIST_BUILDERS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive; torch's own weight files are zips without code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(
            name.count("/") == 1 and name.endswith("/constants.pkl") for name in file.namelist()
        )


def read_archive(path: Path) -> dict[str, Tensor]:
    """All tensors of an archive's module tree by dotted name, parameters and buffers alike.

    Raises:
        pickle.UnpicklingError: The description names anything but tensors and modules.
        ValueError, KeyError, RuntimeError, zipfile.BadZipFile: Damaged.
    """
    with zipfile.ZipFile(path) as file:
        (description,) = [name for name in file.namelist() if _is_description(name)]
        folder = description.removesuffix("/data.pkl")
        reader = _Reader(io.BytesIO(file.read(description)), _build_storage_reader(file, folder))
        module = reader.load()
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError("data.pkl describes no module")
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors)
    return tensors


class _Module:
    """What a class of the archive's own program becomes: attributes and nothing else."""


class _Reader(pickle.Unpickler):
    """Unpickles tensors and attribute trees; every other name is refused."""

    def __init__(
        self, file: io.BytesIO, read_storage: Callable[[str, torch.dtype], Tensor]
    ) -> None:
        super().__init__(file)
        self._read_storage = read_storage

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name of the pickle among the few that are known."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        if module == "torch.jit._pickle" and name in LIST_BUILDERS:
            return list
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(
            f"data.pkl asks for {module}.{name}, which no CLIP archive needs; it was not run"
        )

    def persistent_load(self, pid: Any) -> Tensor:
        """One stored block of values: ("storage", type, key, device, number of values)."""
        kind, dtype, key, _, num_values = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"data.pkl holds an unknown reference {pid!r}")
        values = self._read_storage(str(key), dtype)
        if len(values) != num_values:
            raise pickle.UnpicklingError(f"data/{key} holds {len(values)} of {num_values} values")
        return values


def _build_storage_reader(
    file: zipfile.ZipFile, folder: str
) -> Callable[[str, torch.dtype], Tensor]:
    def read(key: str, dtype: torch.dtype) -> Tensor:
        data = bytearray(file.read(f"{folder}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

    return read


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    # A stride of zero could make any size out of one value.
    if math.prod(size) > len(storage):
        raise pickle.UnpicklingError(f"data.pkl asks for {size} of {len(storage)} stored values")
    return storage.as_strided(size, stride, offset)


def _collect(value: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    for name, member in vars(value).items():
        if isinstance(member, Tensor):
            tensors[prefix + name] = member
        elif isinstance(member, _Module):
            _collect(member, f"{prefix}{name}.", tensors)


def _is_description(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")
