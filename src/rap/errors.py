"""The one exception that is the user's to fix: printed as one line, exit status 2."""

from importlib.util import find_spec


class UserError(Exception):
    """What is wrong, where, and what to do, in one line."""


def installed(module: str) -> bool:
    """Whether a package of an extra can be imported; the package is not imported."""
    return find_spec(module) is not None


def require(module: str, extra: str) -> None:
    """Raise UserError if a package of an extra is not installed."""
    if not installed(module):
        raise UserError(f"{module} is not installed; run: pip install 'rap-retrieval[{extra}]'")
