"""params.yaml as one typed, validated, frozen object."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rap import paths
from rap.params.parsing import Name, Section, hint, parse
from rap.params.reading import read
from rap.params.sections import (
    Backbone,
    Dataset,
    Download,
    Evaluation,
    Features,
    Frames,
    Pretrain,
    Runtime,
    Sweep,
    Tracking,
    Train,
)


class Variant(BaseModel):
    """One row of a table: a method, its options (one group for each part of the method), its training overrides.

    The method defines its groups and their keys; rap.adapters.registry validates them.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    adapter: str
    label: str = ""
    train: dict[str, Any] = {}
    __pydantic_extra__: dict[str, dict[str, Any]]  # the groups of options

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Ablation(Variant):
    """A variant that may state only its differences from a `base` among the variants."""

    adapter: str = ""
    base: str | None = None

    def over(self, base: Variant | None) -> Variant:
        """The complete variant: in every group, the keys of the base, overridden by this variant's."""
        whole = base.model_dump(exclude={"label"}) if base else {}
        for key, value in self.model_dump(exclude={"base"}, exclude_unset=True).items():
            whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
        return Variant(**whole)


class Table(Section):
    title: str
    variants: tuple[str, ...]
    baseline: str

    model_config = ConfigDict(strict=False)

    def only(self, made: Collection[str]) -> "Table":
        """The table without the rows of variants that do not run."""
        variants = tuple(name for name in self.variants if name in made)
        baseline = self.baseline if self.baseline in made else next(iter(variants), "")
        return Table(title=self.title, variants=variants, baseline=baseline)


class Params(Section):
    dataset: Dataset
    download: Download
    backbone: Backbone
    shards: tuple[int, ...]
    frames: Frames
    features: Features
    train: Train
    evaluation: Evaluation
    sweep: Sweep
    seeds: tuple[int, ...]
    run: tuple[str, ...]
    variants: dict[Name, Variant]
    ablations: dict[Name, Ablation]
    listed: dict[Name, Table] = Field(alias="tables")
    tracking: Tracking
    runtime: Runtime
    pretrain: Pretrain

    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if self.shards != tuple(range(len(self.shards))):
            raise ValueError(f"shards: list them as 0, 1, 2, …; found {list(self.shards)}")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds: list at least one, each once; found {list(self.seeds)}")
        for name in self.run:
            if name not in self.variants:
                raise ValueError(f"run: no variant named {name!r}{hint(name, self.variants)}")
        if len(set(self.run)) != len(self.run) or not self.run:
            raise ValueError(f"run: list at least one variant, each once; found {list(self.run)}")
        for name, ablation in self.ablations.items():
            if name in self.variants:
                raise ValueError(f"ablations.{name}: variants has the same name; choose another one")
            if ablation.base and ablation.base not in self.variants:
                found = hint(ablation.base, self.variants)
                raise ValueError(f"ablations.{name}.base: no variant named {ablation.base!r}{found}")
            if not ablation.base and not ablation.adapter:
                raise ValueError(f"ablations.{name}: neither base nor adapter; name the variant it differs from")
        if not self.frames.store and self.runtime.processes > 1:
            raise ValueError(
                "frames.store: false decodes in one process; set runtime.processes to 1 and list more shards"
            )
        known = {**self.variants, **self.ablations}
        for name, table in self.listed.items():
            for variant in (*table.variants, table.baseline):
                if variant not in known:
                    raise ValueError(f"tables.{name}: no variant named {variant!r}{hint(variant, known)}")
            if table.baseline not in table.variants:
                raise ValueError(f"tables.{name}.baseline: {table.baseline!r} is not among the table's variants")
        for name in known:
            self.training(name)
        return self

    @property
    def tables(self) -> dict[str, Table]:
        """The tables with the rows of `run` and of the ablations. The first row replaces a baseline that does not run.

        A table of one row compares nothing: it is omitted, unless no other table of the default run has the row.
        """
        made = {name: table.only({*self.run, *self.ablations}) for name, table in self.listed.items()}
        found = {name: table for name, table in made.items() if len(table.variants) > 1}
        default = [table for table in found.values() if not self.ablations.keys() & set(table.variants)]
        shown = {variant for table in default for variant in table.variants}
        for name, table in self.listed.items():
            alone = table.only(self.run)
            if name not in found and not shown.issuperset(alone.variants):
                found[name] = alone
                shown.update(alone.variants)
        return {name: found[name] for name in self.listed if name in found}

    @property
    def all_variants(self) -> dict[str, Variant]:
        """All variants, including those not in `run`, then the ablations."""
        return {name: self.variant(name) for name in (*self.variants, *self.ablations)}

    def variant(self, name: str) -> Variant:
        """A variant or an ablation, complete."""
        if name in self.variants:
            return self.variants[name]
        own = self.ablations[name]
        return own.over(self.variants.get(own.base or ""))

    def path(self, variant: str) -> str:
        """The path of a variant in params.yaml, such as variants.rap."""
        return f"{'variants' if variant in self.variants else 'ablations'}.{variant}"

    def training(self, variant: str) -> Train:
        """The training parameters of a variant: the common ones, overridden by the variant's."""
        own = self.variant(variant).train
        return parse(Train, {**self.train.model_dump(), **own}, f"{self.path(variant)}.train")


def load(file: str | Path = paths.PARAMS) -> Params:
    """Read and validate a parameter file. Raises UserError with the key's path and the nearest valid name."""
    return parse(Params, read(file), str(file))
