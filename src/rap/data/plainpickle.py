"""Pickles of plain containers and text, read without executing anything that they say.

A pickle is a program, and what it can do is call what it names. Here it may name containers and nothing else.
"""

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

from rap.errors import UserError

BUILTINS = {kind.__name__: kind for kind in (dict, list, set, frozenset, tuple)}
CONTAINERS = {
    "builtins": BUILTINS,
    "__builtin__": BUILTINS,  # so Python 2 calls them
    "collections": {"OrderedDict": OrderedDict, "defaultdict": defaultdict},
}


class Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return CONTAINERS[module][name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and could execute anything") from None


def load(file: Path) -> Any:
    """What the pickle holds; byte strings of Python 2 are UTF-8. Raises UserError if it names more than containers."""
    try:
        with file.open("rb") as stream:
            return Reader(stream, encoding="utf-8").load()
    except Exception as error:  # a damaged pickle can fail in any way
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: not read: {why}; it must be a pickle of lists, dicts and text only") from None
