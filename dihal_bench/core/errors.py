"""Errors that are a user's to mend: one sentence, no traceback, exit status 2."""


class UserError(ValueError):
    """Something in the input is wrong; the message says what, why, and the remedy."""
