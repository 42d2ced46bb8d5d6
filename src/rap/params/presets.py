"""`rap dataset use`: what a dataset asks for, from workflow/datasets/NAME.yaml into params.yaml, comments and all kept.

params.yaml stays the one file that the pipeline reads; a preset is a few lines that a user would write by hand.
"""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from rap.adapters import registry
from rap.errors import UserError
from rap.files import write_text
from rap.params import Params, hint, parse
from rap.paths import PARAMS

FOLDER = Path("workflow/datasets")


class Representer(RoundTripRepresenter):
    """Writes null as `null`: as an empty value it looks forgotten."""


Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def run(params: Params, name: str) -> str:
    """Put the keys of a preset into params.yaml; say which changed. Raises UserError if there is no such preset."""
    names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if name not in names:
        raise UserError(f"{FOLDER}: nothing for {name!r}{hint(name, names)}")
    yaml = YAML()
    yaml.width, yaml.Representer = 1_000, Representer
    yaml.indent(mapping=2, sequence=4, offset=2)  # as params.yaml has it
    values = yaml.load(PARAMS.read_text(encoding="utf-8"))
    changes = list(_merge(values, yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))))
    text = StringIO()
    yaml.dump(values, text)
    registry.check(parse(Params, YAML(typ="safe").load(text.getvalue()), str(PARAMS)))
    if changes:
        write_text(PARAMS, text.getvalue())
    return "\n".join(
        [*changes, f"{PARAMS}: {len(changes)} keys changed for {name}; see docs/datasets.md for its files"]
    )


def _merge(values: dict, wanted: dict, path: str = "") -> Iterator[str]:
    """Set what differs, group by group; yields each change in words."""
    for key, new in wanted.items():
        old: Any = values.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            yield from _merge(old, new, f"{path}{key}.")
        elif old != new:
            values[key] = new
            yield f"{path}{key}: {_plain(old)} -> {_plain(new)}"


def _plain(value: Any) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, list) else value)
