"""params.yaml as typed, validated, frozen objects. Unknown and ill-typed keys are refused with their path."""

import difflib
import types
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rap.data.datasets import names
from rap.errors import UserError

FILE = Path("params.yaml")

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of keys: frozen, nothing unknown, no silent conversion (YAML has types of its own)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Demo(Section):
    train: Positive = 400
    val: Positive = 40
    test: Positive = 125
    seed: int = 0


class MsrVtt(Section):
    train: Literal["9k", "7k"] = "9k"


def _dataset(name: str) -> str:
    if name not in names():
        raise ValueError(f"dataset.name: no dataset {name!r}{hint(name, names())}")
    return name


class Dataset(Section):
    name: Annotated[str, AfterValidator(_dataset)] = "demo"
    annotations: str | None = None
    videos: str | None = None
    max_failed: Fraction = 0.05
    validation: Annotated[int, Field(ge=0)] = 500
    demo: Demo = Demo()
    msrvtt: MsrVtt = MsrVtt()


def _address(text: str) -> str:
    """The address of something on the web: no file, and no other protocol."""
    try:
        good = urlsplit(text).scheme in ("http", "https") and urlsplit(text).hostname
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"download: {text!r} is no address; write one that starts with https:// or http://")
    return text


def _template(address: str) -> str:
    """An address with a place for the name of a video: {video}, {path} or {id}, and nothing else in braces."""
    try:
        fields = {tuple(field) for _, *field in Formatter().parse(address) if field[0] is not None}
    except ValueError:
        fields = set()
    if not fields or not fields <= {(name, "", None) for name in ("video", "path", "id")}:
        raise ValueError(f"download: {address!r}: write {{video}}, {{path}} or {{id}} where the video's name goes")
    return address


Address = Annotated[str, AfterValidator(_address)]
Template = Annotated[Address, AfterValidator(_template)]


class Archive(Section):
    url: Address
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Positive | None = None
    strip: Annotated[int, Field(ge=0)] = 0


class Download(Section):
    archives: Annotated[tuple[Archive, ...], Field(strict=False)] = ()  # YAML knows lists only
    videos: Template | None = None
    pages: Template | None = None
    format: str = "bv*[height<=?480][ext=mp4]/bv*[height<=?480]/b"
    cookies: str | None = None
    rate_limit: Positive | None = None
    sleep: Annotated[float, Field(ge=0)] = 1.0
    timeout: Annotated[float, Field(gt=0)] = 30.0
    retries: Annotated[int, Field(ge=0)] = 5
    backoff: Annotated[float, Field(gt=0)] = 1.0
    max_gb: Annotated[float, Field(gt=0)] = 100.0
    workers: Positive = 4

    @model_validator(mode="after")
    def _one_way(self) -> "Download":
        if self.videos and self.pages:
            raise ValueError("download: videos and pages both say where a video is; keep one")
        return self


class Backbone(Section):
    name: str = "demo-vit"
    pretrained: str | None = None
    weights: str | None = None


class Frames(Section):
    count: Positive = 8
    sampler: Literal["uniform", "fps"] = "uniform"
    fps: Annotated[float, Field(gt=0)] = 1.0
    decoder: Literal["ffmpeg", "sparse"] = "ffmpeg"


class Features(Section):
    caches: tuple[Annotated[str, Field(pattern=r"^(video-(\d+|all)|text-(ids|\d+|all))$")], ...]
    max_words: Positive = 32
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch: Positive = 32

    model_config = ConfigDict(strict=False)


class Train(Section):
    epochs: Positive = 5
    batch: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 1.0e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.2
    warmup: Fraction = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    twins: bool = True
    select: Literal["last", "val", "test"] = "last"
    checkpoint_every: Positive = 50


Post = Literal["dsl", "qb_norm"]


class Evaluation(Section):
    post: tuple[Post, ...] = ()
    bank: Positive = 5000

    model_config = ConfigDict(strict=False)


class Variant(BaseModel):
    """One row of a table: a method, its options (a group named after each part of it), its training overrides.

    Which groups a method has, and their keys, is the method's own business: `rap.adapters.check` validates them.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    adapter: str
    label: str = ""
    train: dict[str, Any] = {}

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Ablation(Variant):
    """A variant that may state its differences from a `base` among the variants, and no more."""

    adapter: str = ""
    base: str | None = None

    def over(self, base: Variant | None) -> Variant:
        """The whole variant: what the base says, key by key in every group, where this one says nothing."""
        whole = base.model_dump(exclude={"label"}) if base else {}
        for key, value in self.model_dump(exclude={"base"}, exclude_unset=True).items():
            whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
        return Variant(**whole)


class Table(Section):
    title: str
    variants: tuple[str, ...]
    baseline: str

    model_config = ConfigDict(strict=False)


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"


class Runtime(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    processes: Positive = 1
    threads: Positive = 2
    workers: Positive = 2


class Pretrain(Section):
    seed: int = 0
    batch: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 1.0e-3
    warm_steps: Positive = 500
    pair_steps: Positive = 600
    event_steps: Positive = 250


class Params(Section):
    dataset: Dataset
    download: Download = Download()
    backbone: Backbone
    shards: tuple[int, ...]
    frames: Frames
    features: Features
    train: Train
    evaluation: Evaluation = Evaluation()
    seeds: tuple[int, ...]
    variants: dict[str, Variant]
    ablations: dict[str, Ablation] = {}
    tables: dict[str, Table]
    tracking: Tracking = Tracking()
    runtime: Runtime = Runtime()
    pretrain: Pretrain = Pretrain()

    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        if self.shards != tuple(range(len(self.shards))):
            raise ValueError(f"shards: list them as 0, 1, 2, …; found {list(self.shards)}")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds: list at least one, each once; found {list(self.seeds)}")
        for name, ablation in self.ablations.items():
            if name in self.variants:
                raise ValueError(f"ablations.{name}: this name stands under variants too; give it another")
            if ablation.base and ablation.base not in self.variants:
                found = hint(ablation.base, self.variants)
                raise ValueError(f"ablations.{name}.base: no variant named {ablation.base!r}{found}")
            if not ablation.base and not ablation.adapter:
                raise ValueError(f"ablations.{name}: neither base nor adapter; name the variant it differs from")
        for name, table in self.tables.items():
            for variant in (*table.variants, table.baseline):
                if variant not in self.all_variants:
                    raise ValueError(f"tables.{name}: no variant named {variant!r}{hint(variant, self.all_variants)}")
            if table.baseline not in table.variants:
                raise ValueError(f"tables.{name}.baseline: {table.baseline!r} is not among the table's variants")
        for name in self.all_variants:
            self.training(name)
        return self

    @property
    def all_variants(self) -> dict[str, Variant]:
        """Those of the default run, then those that are trained only for the tables that name them."""
        whole = {name: own.over(self.variants.get(own.base)) for name, own in self.ablations.items()}
        return self.variants | whole

    def path(self, variant: str) -> str:
        """Where in params.yaml a variant stands, such as variants.rap."""
        return f"{'variants' if variant in self.variants else 'ablations'}.{variant}"

    def training(self, variant: str) -> Train:
        """The training parameters of a variant: the common ones with the variant's own on top."""
        own = self.all_variants[variant].train
        return parse(Train, {**self.train.model_dump(), **own}, f"{self.path(variant)}.train", own)

    @property
    def data(self) -> Path:
        return Path("data") / self.dataset.name

    @property
    def backbone_folder(self) -> Path:
        return Path("data") / "backbones" / self.backbone.name


def load(file: str | Path = FILE) -> Params:
    """Read and validate a parameter file. Raises UserError with the key's path and the nearest valid name."""
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: not found; run `rap` in the folder that holds it") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse(Params, values, str(file))


def parse(model: type[BaseModel], values: Any, where: str, blame: Any = None) -> Any:
    """Validate `values` against `model`; the first thing wrong becomes one UserError that names its path."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error.errors()[0], model, where)) from None


def hint(name: str, valid) -> str:
    """`; did you mean 'rank'?`, or the list of what there is."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(map(str, valid))}"


def _explain(problem: dict, model: type[BaseModel], where: str) -> str:
    *parents, key = problem["loc"] or ("",)
    path = ".".join(map(str, problem["loc"]))
    at = f"{where}: {path}" if path else where
    match problem["type"]:
        case "extra_forbidden":
            return f"{at}: unknown key{hint(key, _keys(model, parents))}"
        case "missing":
            return f"{at}: missing; add it"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
        case _:
            return f"{at}: {problem['msg'][0].lower()}{problem['msg'][1:]}; found {problem['input']!r}"


def _keys(model: Any, path: list) -> list[str]:
    """The keys that the model accepts at a path."""
    for step in path:
        if get_origin(model) is dict:
            model = get_args(model)[1]
        elif get_origin(model) is tuple:
            model = get_args(model)[0]
        elif isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[step].annotation
        if get_origin(model) in (Union, types.UnionType):
            model = next(option for option in get_args(model) if option is not type(None))
    return list(model.model_fields)
