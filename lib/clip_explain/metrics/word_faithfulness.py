"""Word deletion and insertion curves, and confidence: whether the score depends on the words with large weights.

As faithfulness.py does for pixels, with the same readouts and `auc`; above request.py, which drops and embeds tokens.

Degenerate input: words of equal weight are taken in an order drawn by the seed, or in reading order; a text with fewer
words than steps stays as it is when they are used up (empty when deleting, whole when inserting); NaN is an error.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clip_explain.checks import check_counts, checked, finite, one_of, out_of_memory
from clip_explain.errors import MethodError, TensorError, nearest
from clip_explain.metrics.readouts import Readout, change, check_candidates, check_index, finds, is_found
from clip_explain.models.adapted import text_tower
from clip_explain.models.model import Model
from clip_explain.models.vit import own_tokens
from clip_explain.request import WordRequest, longest, words_of
from clip_explain.texts import drop_tokens

MODES = ("deletion", "insertion")
TIES = ("random", "reading")


@checked()
def word_curves(
    request: WordRequest,
    weights: Float[Tensor, "texts images tokens"],
    readouts: Mapping[str, Readout],
    mode: str = "deletion",
    **options: Any,
) -> dict[str, Float[Tensor, "texts images points"]]:
    """What each readout says while a text loses ("deletion") or gains ("insertion") words, heaviest first; GE Tab 2.

    `weights` are what METHODS[name].words returns, raw, start and end token included. One word
    a step, `steps` + 1 points, of which the first is the whole text, or the empty one (start and end token). The words
    that are left keep their order and close up. A word's weight is the sum over its tokens; punctuation counts as
    words, as CLIP's tokenizer cuts it. Words of equal weight go in an order drawn by `seed` + i for text i
    (`ties="random"`), or as they are read ("reading"). Readouts: see `word_retrieval`. The area is `auc(curve)`.
    `options`: those of `perturbed_texts`.
    The paper says no more than "one word deleted/inserted at a time", 5 steps; its code has no text metric.
    Raises TensorError (shape, NaN) and MethodError (unknown mode or ties, counts below 1, out of memory).
    """
    embeddings = perturbed_texts(request, weights, mode, **options)
    return {name: readout(embeddings) for name, readout in readouts.items()}


@checked()
def perturbed_texts(
    request: WordRequest,
    weights: Float[Tensor, "texts images tokens"],
    mode: str = "deletion",
    *,
    batch_size: int = 256,
    **options: Any,
) -> Float[Tensor, "texts images points embedding"]:
    """Unit embeddings of the perturbed texts, for your own readouts; arguments and errors as in `word_curves`.

    `options`: those of `perturbed_tokens`, its `steps`, `ties` and `seed`.
    """
    tokens = perturbed_tokens(request, weights, mode, **options)
    return embed_batches(request.model, tokens.flatten(0, 2), batch_size).unflatten(0, tokens.shape[:3])


@checked()
def recall_among_perturbed(
    embeddings: Float[Tensor, "texts methods points embedding"],
    images: Float[Tensor, "images embedding"],
    image_of: Int[Tensor, " texts"],
) -> dict[str, Float[Tensor, "texts methods points"]]:
    """Recall at 1, "IR" and "TR", where every text of the gallery is perturbed, each by its own weights.

    IR: is the text's image the first of all for what is left of the text? TR: is what is left of it the first for its
    image, against what is left of the other images' texts, by the same method, at the same point? So a text of no words
    finds nothing and is never found: all are the same, and a tie is a miss. Against whole texts, as `word_retrieval`
    has it, the empty text may be nearer to an image than most, which is not about the words. GE (4.2) leaves open
    which it is. TensorError for ids that do not fit.
    """
    check_index("image_of", image_of, len(images))
    scores = torch.einsum("tmpe,ie->tmpi", embeddings, images.to(embeddings))
    own = F.one_hot(image_of.long(), len(images)).bool()
    mine = scores.gather(-1, image_of.long()[:, None, None, None].expand(*scores.shape[:3], 1))[..., 0]
    others = scores.masked_fill(own[:, None, None], -torch.inf).amax(dim=-1)
    rivals = scores.masked_fill(own[:, None, None], -torch.inf).amax(dim=0)  # methods, points, images
    best = rivals[..., image_of.long()].permute(2, 0, 1)
    return {"IR": (mine > others).float(), "TR": (mine > best).float()}


@checked()
def word_retrieval(
    images: Float[Tensor, "images embedding"],
    texts: Float[Tensor, "candidates embedding"],
    image_of: Int[Tensor, " candidates"],
    text_ids: Int[Tensor, " texts"],
    ks: tuple[int, ...] = (1, 5, 10),
) -> dict[str, Readout]:
    """Recall readouts "IR@1" ... "TR@10" of perturbed texts among given candidates (GE Tab 2: by their size, @1).

    `images` and `texts` are the candidates' unit embeddings, untouched; `image_of` says which image each text belongs
    to, `text_ids` which candidate each perturbed text is. IR: is its image among the first k of all for the perturbed
    text? TR: is the perturbed text among the first k for its image, against the texts of the other images? The image's
    own other texts do not count, or they would hide what happens to this one. TensorError for ids that do not fit.
    """
    check_candidates(images, texts, image_of, text_ids)
    mine = image_of[text_ids]
    own_image = F.one_hot(mine.long(), len(images)).bool()[:, None]
    own_texts = (image_of == mine[:, None])[:, None]
    ir = {f"IR@{k}": partial(finds, candidates=images, own=own_image, k=k) for k in ks}
    request = images[mine][:, None]
    tr = {f"TR@{k}": partial(is_found, queries=request, rivals=texts, left_out=own_texts, k=k) for k in ks}
    return ir | tr


@checked()
def perturbed_tokens(
    request: WordRequest,
    weights: Float[Tensor, "texts images tokens"],
    mode: str = "deletion",
    steps: int = 5,
    ties: str = "random",
    seed: int = 0,
) -> Int[Tensor, "texts images points context"]:
    """Tokens of every text at every point of its curve for every image; arguments and errors as in `word_curves`."""
    check_counts(steps=steps)
    if mode not in MODES:
        raise MethodError(f"unknown mode {mode!r}: {nearest(mode, MODES)}")
    one_of("ties", ties, TIES)
    check_weights(request, weights)
    owners, words = words_of(request)
    counts = torch.arange(steps + 1, device=request.tokens.device)[:, None]
    found = []
    for index, tokens in enumerate(request.tokens):
        mine = words[owners == index]
        drawn = None if ties == "reading" else torch.Generator().manual_seed(seed + index)
        place = token_places(mine, weights[index].to(tokens.device), drawn)[:, None]
        changed = place < counts  # images, points, context
        dropped = mine.any(dim=0) & (changed if mode == "deletion" else ~changed)
        tokens = tokens.expand(dropped.shape).flatten(0, 1)
        left = drop_tokens(tokens, dropped.flatten(0, 1), request.model.vocabulary)
        found.append(left.unflatten(0, dropped.shape[:2]))
    return torch.stack(found)


@checked()
def token_places(
    words: Tensor, weights: Float[Tensor, "images tokens"], generator: torch.Generator | None = None
) -> Int[Tensor, "images context"]:
    """For each token the place of its word (a row of `words`, True at its tokens) when the heaviest goes first.

    Words of equal weight go in an order that the generator draws, the same for all images; without one in text order.
    """
    sums = weights @ words[:, : weights.shape[1]].to(weights).T
    first = torch.arange(len(words)) if generator is None else torch.randperm(len(words), generator=generator)
    first = first.to(sums.device)
    order = first[(-sums[:, first]).argsort(dim=-1, stable=True)]
    places = order.argsort(dim=-1)
    return (places[..., None] * words).sum(dim=1)


@checked()
def word_confidence(
    request: WordRequest, weights: Float[Tensor, "texts images tokens"], batch_size: int = 256
) -> dict[str, Float[Tensor, "texts images"]]:
    """Confidence "drop" and "increase" when only tokens above the median weight are kept; as `confidence`, for texts.

    M2IB's rule (Wang et al. 2024): the 50th percentile over the tokens without start and end. Their code keeps the
    place of a lost token and puts number 0 ("!") there; here the others close up. Equal weights leave nothing.
    Raises as `word_curves`.
    """
    check_weights(request, weights)
    owned = own_tokens(text_tower(request.model.network), request.tokens)
    shape = (weights.shape[0], weights.shape[1], request.tokens.shape[1])
    dropped = torch.zeros(shape, dtype=torch.bool, device=request.tokens.device)
    for index, own in enumerate(owned):
        places = own.nonzero()[:, 0]
        inner = weights[index][:, places].to(request.targets)
        dropped[index][:, places] = inner <= inner.quantile(0.5, dim=-1, keepdim=True)
    tokens = request.tokens[:, None].expand(shape).flatten(0, 1)
    kept = drop_tokens(tokens, dropped.flatten(0, 1), request.model.vocabulary)
    embedded = embed_batches(request.model, torch.cat([request.tokens, kept]), batch_size)
    before, after = embedded[: len(owned)], embedded[len(owned) :].unflatten(0, shape[:2])
    targets = request.targets.to(embedded)
    return change((after * targets).sum(dim=-1), before @ targets.T)


@checked()
def embed_batches(
    model: Model, tokens: Int[Tensor, "texts context"], batch_size: int
) -> Float[Tensor, "texts embedding"]:
    """Unit embeddings, at most `batch_size` texts at once. MethodError out of memory."""
    check_counts(batch_size=batch_size)
    with torch.no_grad(), out_of_memory(batch_size):
        return torch.cat([model.embed_tokens(part) for part in tokens.split(batch_size)])


@checked()
def check_weights(request: WordRequest, weights: Tensor) -> None:
    """TensorError unless there is a finite weight for every text, image and token up to the longest text's end."""
    texts, tokens = len(request.tokens), longest(request)
    if weights.ndim != 3 or len(weights) != texts or weights.shape[-1] < tokens or not weights.numel():
        expected = f"({texts}, images, {tokens})"
        raise TensorError(f"got weights of shape {tuple(weights.shape)}, expected (texts, images, tokens), {expected}")
    finite("weights", weights)
