"""The explainers, and the two calls that look one up by name and run it: `explain` and `explain_words`.

An explainer is a plain function that takes a `Request`, or a `WordRequest`, and its own keyword options, and returns
raw maps. Importing this package does not import torch; the modules that need it are imported at first use.
"""

import warnings
from typing import TYPE_CHECKING

from clip_explain.explainers.registry import (
    METHODS,
    OLD_NAMES,
    check_fits,
    find_method,
    methods_for,
    names_of,
    names_of_pairs,
)

if TYPE_CHECKING:
    from clip_explain.explainers.calls import explain, explain_words, options_of
    from clip_explain.explainers.explanation import Explanation, WordExplanation
    from clip_explain.explainers.interactions import explain_pair

__all__ = [
    "Explanation",
    "METHODS",
    "OLD_NAMES",
    "WordExplanation",
    "check_fits",
    "explain",
    "explain_pair",
    "explain_words",
    "find_method",
    "methods_for",
    "names_of",
    "names_of_pairs",
    "options_of",
]

# Tables of an earlier release -> the expression that replaces them.
OLD_TABLES = {
    "EXPLAINERS": "METHODS[name].image",
    "WORD_EXPLAINERS": "METHODS[name].words",
    "FOR_RESNETS": "METHODS[name].resnets",
    "FOR_CLASSIFIERS": "METHODS[name].classifiers",
}


def __getattr__(name: str):
    if name in ("explain", "explain_words", "options_of"):
        from clip_explain.explainers import calls

        return getattr(calls, name)
    if name in ("Explanation", "WordExplanation"):
        from clip_explain.explainers import explanation

        return getattr(explanation, name)
    if name == "explain_pair":
        from clip_explain.explainers import interactions

        return interactions.explain_pair
    if name in OLD_TABLES:
        return old_table(name)
    raise AttributeError(f"module 'clip_explain.explainers' has no attribute {name!r}")


def old_table(name: str):
    """A table of methods of an earlier release, with the old names of methods; its use raises a DeprecationWarning."""
    warnings.warn(f"{name} will go; write {OLD_TABLES[name]}", DeprecationWarning, stacklevel=3)
    if name == "FOR_RESNETS":
        return frozenset(each for each in names_of() if METHODS[each].resnets)
    if name == "FOR_CLASSIFIERS":
        return frozenset(each for each in names_of() if METHODS[each].classifiers)
    if name == "EXPLAINERS":
        now = {each: METHODS[each].image for each in names_of()}
        return now | {old: now[new] for old, new in OLD_NAMES["images"].items()}
    now = {each: METHODS[each].words for each in names_of(words=True)}
    return now | {old: now[new] for old, new in OLD_NAMES["words"].items()}
