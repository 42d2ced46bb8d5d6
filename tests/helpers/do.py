"""The stages as functions, for tests that run them in one process and in the present folder."""

from rap.jobs import perform
from rap.params import Params


def download(params: Params, **options) -> str:
    return perform(params, "download", **options)


def backbone(params: Params) -> str:
    return perform(params, "backbone")


def frames(params: Params, shard: int) -> str:
    return perform(params, "frames", shard=shard)


def features(params: Params, cache: str, shard: int) -> str:
    return perform(params, "features", cache=cache, shard=shard)


def train(params: Params, variant: str, seed: int) -> str:
    return perform(params, "train", variant=variant, seed=seed)


def evaluate(params: Params, variant: str, seed: int) -> str:
    return perform(params, "evaluate", variant=variant, seed=seed)


def table(params: Params, name: str) -> str:
    return perform(params, "table", table=name)


def report(params: Params) -> str:
    return perform(params, "report")
