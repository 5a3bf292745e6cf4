"""Do the weights of a sentence's words tell its words apart, and do they agree with the map of the image?

Of words and weights as `explain_words(..., per="word")` gives them. All numbers are 0.5 by chance.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import TextError


@checked()
def words_above(
    words: Sequence[str], weights: Float[Tensor, " words"], named: Collection[str], others: Collection[str]
) -> float:
    """How often a word of `named` outweighs one of `others`, over all pairs in the sentence; a tie counts half.

    A word that is in both belongs to `named`. TextError where the sentence has none of either.
    """
    kept = [number for number, word in enumerate(words) if word in named or word in others]
    marked = [words[number] in named for number in kept]
    if len(set(marked)) < 2:
        raise TextError(f"{' '.join(words)!r} has no word of {sorted(named)} beside one of {sorted(others)}")
    return float(roc_auc_score(marked, weights[kept].detach().cpu().numpy()))


@checked()
def sides_agree(
    words: Sequence[str],
    weights: Float[Tensor, " words"],
    first: Collection[str],
    second: Collection[str],
    strengths: Float[Tensor, "2"],
) -> float:
    """1 if the object on which the map is stronger has the heavier words too, 0 if the other one has, 0.5 for a tie.

    `first` and `second` are the words of two objects, of which a word may name both; `strengths` how strong the map is
    on each, per pixel.
    """
    sums = [sum(float(w) for word, w in zip(words, weights, strict=True) if word in named) for named in (first, second)]
    sides = torch.sign(torch.tensor(sums).diff()) * torch.sign(strengths.cpu().diff())
    return float(1 + sides) / 2
