"""params.yaml as typed, validated, frozen objects. Unknown and wrongly typed keys are rejected with their path."""

from rap.params.params import Ablation, Params, Table, Variant, load
from rap.params.parsing import Count, Name, Section, hint, parse
from rap.params.sections import (
    Archive,
    Backbone,
    Dataset,
    Demo,
    Download,
    Post,
    Pretrain,
    Runtime,
    Sampling,
    Train,
)

__all__ = [
    "Ablation",
    "Archive",
    "Backbone",
    "Count",
    "Dataset",
    "Demo",
    "Download",
    "Name",
    "Params",
    "Post",
    "Pretrain",
    "Runtime",
    "Sampling",
    "Section",
    "Table",
    "Train",
    "Variant",
    "hint",
    "load",
    "parse",
]
