"""params.yaml as typed, validated, frozen objects. Unknown and wrongly typed keys are refused with their path."""

from rap.params.params import Ablation, Params, Table, Variant, load
from rap.params.parsing import Count, Name, Section, hint, parse
from rap.params.sections import Archive, Backbone, Dataset, Demo, Download, Frames, Post, Pretrain, Runtime, Train

__all__ = [
    "Ablation",
    "Archive",
    "Backbone",
    "Count",
    "Dataset",
    "Demo",
    "Download",
    "Frames",
    "Name",
    "Params",
    "Post",
    "Pretrain",
    "Runtime",
    "Section",
    "Table",
    "Train",
    "Variant",
    "hint",
    "load",
    "parse",
]
