"""When to ask again: what has a chance is tried several times with growing pauses, what has none is not."""

from collections.abc import Callable
from threading import Event

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential
from tenacity.nap import sleep_using_event

from rap.params import Download

AGAIN = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that pass
LONGEST = 120.0  # seconds between two attempts; a server that asks for more is left to the next run
WORTH = 1_000_000  # bytes: a connection that brought as many is no failed attempt, though it broke off


class FetchError(Exception):
    """Why something cannot be had, in one line.

    `again`: another attempt, after `wait` seconds at least, may get it. `dead`: it is gone for good, and later runs
    need not ask. Neither: this run gives up, the next one asks again. `gained`: bytes that the attempt did bring.
    """

    def __init__(self, reason: str, *, again: bool = False, dead: bool = False, wait: float = 0.0, gained: int = 0):
        super().__init__(reason)
        self.again, self.dead, self.wait, self.gained = again, dead, wait, gained


def patiently(settings: Download, stop: Event) -> Retrying:
    """Calls a function until it succeeds, and raises its last FetchError after `retries` vain attempts more."""
    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.again and not stop.is_set()),
        stop=_after_vain(settings.retries),
        wait=_pause(settings.backoff),
        sleep=sleep_using_event(stop),
        reraise=True,
    )


def _pause(first: float) -> Callable[[RetryCallState], float]:
    doubling = wait_exponential(multiplier=first, max=LONGEST)
    return lambda state: max(doubling(state), state.outcome.exception().wait)


def _after_vain(most: int) -> Callable[[RetryCallState], bool]:
    vain = 0

    def stop(state: RetryCallState) -> bool:
        nonlocal vain
        error = state.outcome.exception()
        vain = 0 if error.gained >= WORTH else vain + 1
        return vain > most or error.wait > LONGEST

    return stop
