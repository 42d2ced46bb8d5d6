"""Sections of the params.yaml that ships, with changes: no default stands anywhere else."""

from functools import cache, reduce
from pathlib import Path
from typing import Any

from rap.params import Params, load, parse


@cache
def _params() -> Params:
    return load(Path(__file__).resolve().parents[2] / "params.yaml")


def shipped(section: str, **changes: Any) -> Any:
    """A section by its path, such as "dataset.demo"."""
    found = reduce(getattr, section.split("."), _params())
    return parse(type(found), found.model_dump(exclude=set(changes)) | changes, section)
