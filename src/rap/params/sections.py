"""The sections of params.yaml, which holds the values and their comments; this module has no defaults."""

from pathlib import Path
from string import Formatter
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from rap.params.parsing import Count, Name, Section

Positive = Annotated[int, Field(gt=0, le=10**9)]
Few = Annotated[int, Field(gt=0, le=1024)]  # processes, threads
Fraction = Annotated[float, Field(ge=0, le=1)]


class Demo(Section):
    train: Positive
    val: Positive
    test: Positive
    seed: int


class MsrVtt(Section):
    train: Literal["9k", "7k"]


class DiDeMo(Section):
    paragraph: Literal["whole", "listed"]


class Dataset(Section):
    name: Name  # checked when the dataset is looked up, so a new dataset needs no change here
    annotations: str | None
    videos: str | None
    max_failed: Fraction
    validation: Annotated[int, Field(ge=0)]
    demo: Demo
    msrvtt: MsrVtt
    didemo: DiDeMo


def _address(text: str) -> str:
    """Accept http and https only: no files, no other protocols."""
    try:
        good = urlsplit(text).scheme in ("http", "https") and urlsplit(text).hostname
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"download: {text!r} is not an address; write one that starts with https:// or http://")
    return text


def _template(address: str) -> str:
    """An address with a field for the name of a video: {video}, {path} or {id}, and no other field."""
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
    archives: Annotated[tuple[Archive, ...], Field(strict=False)]  # YAML has lists only
    videos: Template | None
    pages: Template | None
    format: str
    hosts: Annotated[tuple[str, ...], Field(strict=False)]
    cookies: str | None
    rate_limit: Positive | None
    sleep: Annotated[float, Field(ge=0)]
    timeout: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]
    backoff: Annotated[float, Field(gt=0)]
    max_gb: Annotated[float, Field(gt=0)]
    workers: Few

    @model_validator(mode="after")
    def _one_way(self) -> "Download":
        if self.videos and self.pages:
            raise ValueError("download: both videos and pages say where a video is; keep one")
        return self


class Backbone(Section):
    name: Name
    pretrained: str | None
    weights: str | None

    @property
    def file(self) -> Path | None:
        """The local file of weights."""
        return Path(self.weights).expanduser() if self.weights else None


class Sampling(Section):
    """The frames of a clip, and their decoder."""

    count: Count
    sampler: Literal["uniform", "fps"]
    fps: Annotated[float, Field(gt=0)]
    decoder: Literal["ffmpeg", "sparse"]


class Frames(Sampling):
    store: bool

    @property
    def sampling(self) -> Sampling:
        return Sampling(**self.model_dump(exclude={"store"}))


class Features(Section):
    caches: tuple[Annotated[str, Field(pattern=r"^(video-(\d+|all)|text-(ids|\d+|all))$")], ...]
    max_words: Count
    dtype: Literal["float32", "float16", "bfloat16"]
    batch: Positive

    model_config = ConfigDict(strict=False)


class Train(Section):
    epochs: Positive
    batch: Positive
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup: Fraction
    clip_norm: Annotated[float, Field(gt=0)]
    twins: bool
    loss: Literal["infonce", "sigmoid"]
    select: Literal["last", "val", "test"]
    checkpoint_every: Positive


Post = Literal["dsl", "qb_norm"]


class Evaluation(Section):
    post: tuple[Post, ...]
    bank: Positive

    model_config = ConfigDict(strict=False)


class Tracking(Section):
    uri: str
    system_metrics: Annotated[float, Field(gt=0)] | None


class Runtime(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16"]
    processes: Few
    threads: Few
    jobs: Few
    workers: Few


class Sweep(Section):
    lr: tuple[Annotated[float, Field(gt=0)], ...]
    options: dict[str, dict[str, tuple[int, ...]]]
    seeds: tuple[int, ...]

    model_config = ConfigDict(strict=False)


class Pretrain(Section):
    seed: int
    batch: Positive
    lr: Annotated[float, Field(gt=0)]
    warm_steps: Positive
    pair_steps: Positive
    course_steps: Positive
    scene_steps: Positive
    text_steps: Positive
