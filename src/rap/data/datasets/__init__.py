"""The datasets by name. This folder is the list: to add a dataset, add one file here and change nothing else.

The file NAME.py defines two names that `rap.data.registry` reads:

- `prepare(params, videos) -> Manifest` lists the videos under the folder `videos`, which it may fill. It leaves
  `digest` empty, since the download stage computes it.
- `DATASET`, a `rap.data.registry.DatasetInfo`.

Importing this package imports no dataset, so that params.yaml is checked without pandas.
"""

from pkgutil import iter_modules

from rap.errors import UserError
from rap.params import hint

ELSEWHERE = {"demo": "rap.demo.corpus"}  # the demo and its generator are in their own package


def names() -> list[str]:
    """The names that `dataset.name` may take, sorted."""
    return sorted([*ELSEWHERE, *(found.name for found in iter_modules(__path__))])


def module(name: str) -> str:
    """The dotted name of the module that defines a dataset. Raises UserError if there is none."""
    if name not in names():
        raise UserError(f"params.yaml: dataset.name: there is no dataset {name!r}{hint(name, names())}")
    return ELSEWHERE.get(name, f"{__name__}.{name}")
