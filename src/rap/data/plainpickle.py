"""Read a pickle of containers and text without executing anything in it.

MSVD's captions circulate as a pickle. A pickle can call any function that it names, so `find_class`, the hook that the
standard library documents for this purpose, admits containers only. No maintained library does this: pickletools lists
opcodes without building values, and a scanner such as fickling decides whether a pickle looks harmless, then runs it.
"""

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

from rap.errors import UserError

BUILTINS: dict[str, type] = {kind.__name__: kind for kind in (dict, list, set, frozenset, tuple)}
CONTAINERS: dict[str, dict[str, type]] = {
    "builtins": BUILTINS,
    "__builtin__": BUILTINS,  # the name in Python 2
    "collections": {"OrderedDict": OrderedDict, "defaultdict": defaultdict},
}


class Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return CONTAINERS[module][name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which could execute code") from None


def load(file: Path) -> Any:
    """The value of a pickle; byte strings of Python 2 are read as UTF-8. Raises UserError if it names anything else."""
    try:
        with file.open("rb") as stream:
            return Reader(stream, encoding="utf-8").load()
    except Exception as error:  # a damaged pickle can raise any exception
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: cannot be read: {why}; only lists, dicts and text are accepted") from None
