"""The typed errors that the library raises at its edges, and the helper behind "did you mean".

Every error says what was got, what was expected and what is available. All are ValueErrors.
"""

import difflib
from collections.abc import Iterable


class ClipExplainError(ValueError):
    """The base of all errors of this library; catch it to catch them all."""


class ModelError(ClipExplainError):
    """An unknown or unavailable model, or a device or number format that cannot be used."""


class WeightsError(ClipExplainError):
    """A weights file that is missing, unreadable or not a CLIP."""


class MethodError(ClipExplainError):
    """An unknown explainer, or an option it does not have or cannot take."""


class ImageError(ClipExplainError):
    """An image that is missing, unreadable, truncated or empty."""


class TextError(ClipExplainError):
    """A text that is empty or longer than the model's context."""


class TensorError(ClipExplainError):
    """A tensor of the wrong shape or type, or with values that are not finite."""


class DatasetError(ClipExplainError):
    """A dataset that is missing or not in its published layout."""


class OutputError(ClipExplainError):
    """A result that cannot be written where it was asked for."""


class WorkerError(ClipExplainError):
    """A cluster that cannot be reached or used, or a worker process that was lost."""


class OutsideWorldWarning(UserWarning):
    """An embedded model meets a word that it never learned, or a picture that was not rendered for it."""


LETTERS = 80  # the most letters of a refused value in an error message


def brief(value: object) -> str:
    """The `repr` of a value on one line, shortened if it is long."""
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= LETTERS else shown[:LETTERS] + "..."


def nearest(name: str, options: Iterable[str], count: int = 3) -> str:
    """The end of an error message about an unknown `name`: the nearest of `options`, then all of them.

    >>> nearest("tiny_vit", ["tiny-vit", "RN50"])
    "did you mean 'tiny-vit'? Available: tiny-vit, RN50."
    """
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=count, cutoff=0.5)
    available = f"Available: {', '.join(by_lower.values())}."
    if not close:
        return available
    return f"did you mean {' or '.join(repr(by_lower[match]) for match in close)}? {available}"
