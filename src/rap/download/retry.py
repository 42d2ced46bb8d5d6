"""Which failures are retried, and when: temporary ones, with growing pauses; permanent ones never.

urllib3's own Retry does not suffice: it ends with the response headers, but most failures of large files come later,
and its pauses cannot be interrupted. One policy for HTTP and yt-dlp is simpler than two.
"""

from collections.abc import Callable
from threading import Event

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential
from tenacity.nap import sleep_using_event

from rap.params import Download

TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses
LONGEST = 120.0  # seconds between two attempts; if a server asks for more, the next run tries again
PROGRESS = 1_000_000  # bytes: an interrupted transfer of at least this many does not count as a failed attempt


class FetchError(Exception):
    """Why a file cannot be fetched, in one line.

    `again`: another attempt, after at least `wait` seconds, may succeed. `dead`: the failure is permanent, and later
    runs make no request. Neither: this run gives up and the next one tries again. `gained`: bytes transferred by the
    attempt.
    """

    def __init__(self, reason: str, *, again: bool = False, dead: bool = False, wait: float = 0.0, gained: int = 0):
        super().__init__(reason)
        self.again, self.dead, self.wait, self.gained = again, dead, wait, gained


def retrying(settings: Download, stop: Event) -> Retrying:
    """Calls a function until it succeeds; raises its last FetchError after `settings.retries` failed retries."""
    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.again and not stop.is_set()),
        stop=_after_failures(settings.retries),
        wait=_pause(settings.backoff),
        sleep=sleep_using_event(stop),
        reraise=True,
    )


def _pause(first: float) -> Callable[[RetryCallState], float]:
    doubling = wait_exponential(multiplier=first, max=LONGEST)
    return lambda state: max(doubling(state), _error(state).wait)


def _after_failures(limit: int) -> Callable[[RetryCallState], bool]:
    failures = 0

    def stop(state: RetryCallState) -> bool:
        nonlocal failures
        error = _error(state)
        failures = 0 if error.gained >= PROGRESS else failures + 1
        return failures > limit or error.wait > LONGEST

    return stop


def _error(state: RetryCallState) -> FetchError:
    """The error of a failed attempt: only FetchErrors are retried."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, FetchError)
    return error
