"""The exception for errors that the user can fix: printed as one line, exit status 2."""

from importlib.util import find_spec


class UserError(Exception):
    """The error, its place and its remedy, in one line."""


def installed(module: str) -> bool:
    """Whether a package of an extra is installed; does not import it."""
    return find_spec(module) is not None


def require(module: str, extra: str) -> None:
    """Raise UserError if a package of an extra is not installed."""
    if not installed(module):
        raise UserError(f"{module} is not installed; run: pip install 'rap-retrieval[{extra}]'")
