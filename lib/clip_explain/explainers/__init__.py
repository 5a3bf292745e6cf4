"""The explainers, and the two calls that look one up by name and run it: `explain` and `explain_words`.

An explainer is a plain function: a `Request`, or a `WordRequest`, and its own keyword options in; raw maps out.
Importing this package is light; what needs torch is imported at first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_explain.explainers.calls import (
        EXPLAINERS,
        FOR_CLASSIFIERS,
        FOR_RESNETS,
        WORD_EXPLAINERS,
        explain,
        explain_words,
        options_of,
    )

__all__ = ["EXPLAINERS", "FOR_CLASSIFIERS", "FOR_RESNETS", "WORD_EXPLAINERS", "explain", "explain_words", "options_of"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'clip_explain.explainers' has no attribute {name!r}")
    from clip_explain.explainers import calls

    return getattr(calls, name)
