"""The hub of models: look into its cache, and work offline."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests

PATIENCE = 10  # timeout of the hub's first response, in seconds


def cached_or_reachable(model: str) -> None:
    """Raises OSError if a model is not cached and the hub does not respond; its client would retry for a minute."""
    from huggingface_hub import constants

    if not in_hubs_cache(model) and not constants.HF_HUB_OFFLINE:
        requests.head(constants.ENDPOINT, timeout=PATIENCE)


@contextmanager
def reachable_or_offline() -> Iterator[None]:
    """Without a connection, make the hub's clients read only their cache; they would retry for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            requests.head(constants.ENDPOINT, timeout=PATIENCE)
    except requests.RequestException:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def in_hubs_cache(model: str) -> bool:
    """Whether the cache holds the weights of a model, OWNER/NAME/ or OWNER/NAME/FILE."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    owner, file = model.rsplit("/", 1)
    names = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    return any(isinstance(try_to_load_from_cache(owner, name), str) for name in names)
