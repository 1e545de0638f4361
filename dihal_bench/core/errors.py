"""Errors that are a user's to mend: one sentence, no traceback, exit status 2."""


class UserError(ValueError):
    """Something in the input is wrong; the message says what, why, and the remedy."""


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of what a library had to say, or the error's name."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".: ")
