"""Reads the tensors of a TorchScript archive, OpenAI's format for CLIP, without executing its code.

Why not torch's own: torch.load(weights_only=True) refuses TorchScript archives, and torch.jit.load executes their code:
a scripted `__setstate__` runs on load. Checked with torch 2.15.

The archive is a zip file of code, a pickle of the module's attributes, and the tensors' bytes. This module ignores the
code. A pickle can call any function that it names; the unpickler here allows only modules, tensors and plain
containers.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORAGES = {f"{name}Storage": getattr(torch, name.lower()) for name in ("Float", "Half", "Double", "BFloat16")}
STORAGES |= {f"{name}Storage": getattr(torch, name.lower()) for name in ("Long", "Int", "Short", "Bool")}
STORAGES |= {"ByteStorage": torch.uint8, "CharStorage": torch.int8}


class Module:
    """Replaces any class of the archive and holds its attributes."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class Reader(pickle.Unpickler):
    """Unpickles the attributes. Raises UnpicklingError on any other class or function."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list  # of plain values or of tensors
        raise pickle.UnpicklingError(f"it names {module}.{name}, which could execute code")

    def persistent_load(self, id: tuple) -> Tensor:
        """The elements of a storage as a flat tensor."""
        kind, dtype, key, _device, count = id
        if kind != "storage" or not str(key).isdecimal():
            raise pickle.UnpicklingError(f"it refers to {id!r}")
        return torch.frombuffer(bytearray(self.archive.read(f"{self.root}/data/{key}")), dtype=dtype, count=count)


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _root(archive) is not None


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The module's tensors by their names in its state_dict. A damaged archive raises errors of any type."""
    with zipfile.ZipFile(path) as archive:
        return dict(_tensors(Reader(archive, _root(archive) or "").load()))


def _tensors(module: Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Module):
            yield from _tensors(value, f"{prefix}{name}.")


def _root(archive: zipfile.ZipFile) -> str | None:
    """The archive's top folder if it contains code; None otherwise. Files of `torch.save` contain none."""
    names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""
    return root if any(name.startswith(f"{root}/code/") for name in names) else None
