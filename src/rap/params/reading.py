"""params.yaml as plain values. PyYAML silently keeps the last of two equal keys; this loader rejects them."""

from pathlib import Path
from typing import Any

import yaml

from rap.errors import UserError

LARGEST = 1_000_000  # bytes


class Loader(yaml.SafeLoader):
    """Plain values only; a duplicate key in a group is an error. (The loader in C crashes on deep nesting.)"""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if isinstance(key.value, str) and names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def read(file: str | Path) -> Any:
    """The values of a YAML file. Raises UserError if there is none, or if it is not text, not YAML, or too large."""
    try:
        size = Path(file).stat().st_size
        if size > LARGEST:
            raise UserError(f"{file}: {size:,} bytes; a file of parameters has less than {LARGEST:,}")
        return _load(Path(file).read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        raise UserError(f"{file}: not found; run `rap` in the folder that holds it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise UserError(f"{file}: not valid YAML: nested too deep") from None


def _load(text: str, name: str) -> Any:
    """The values of a YAML text; error messages name `name`."""
    loader = Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
