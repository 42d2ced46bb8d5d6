"""The one exception that is the user's to fix: printed as one line, exit status 2."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one line."""
