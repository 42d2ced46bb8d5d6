"""The models of open_clip with their sizes and costs, from models.csv, which workflow/scripts/backbones.py writes."""

from importlib.resources import files

import pandas as pd


def known() -> pd.DataFrame:
    """One row per model. `blocks` and `tokens` are empty for a model that is used whole."""
    return pd.read_csv(str(files("rap.clip") / "models.csv"), dtype={"blocks": "Int64", "tokens": "Int64"})
