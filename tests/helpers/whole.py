"""A tiny project with two variants and one seed in which every job has run."""

from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import do
import tiny

from rap.params import Params, Table


def project(folder: Path) -> Params:
    """Make it in `folder`; the present folder stays. Nothing is logged."""
    with chdir(folder), patch("rap.report.tracking.log"):
        params = _smaller(tiny.project(folder))
        tiny.cache(params)
        for variant in params.variants:
            do.train(params, variant, 0)
            do.evaluate(params, variant, 0)
        do.table(params, "table1")
    return params


def _smaller(params: Params) -> Params:
    chosen = {name: params.variants[name] for name in ("lorm", "ssf")}
    caches = params.features.model_copy(update={"caches": ("video-0", "video-1", "text-ids")})
    table = Table(title="", variants=tuple(chosen), baseline="ssf")
    return params.model_copy(
        update={
            "variants": chosen,
            "features": caches,
            "seeds": (0,),
            "run": tuple(chosen),
            "listed": {"table1": table},
        }
    )
