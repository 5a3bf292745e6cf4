"""Explanations of a pair: which patch goes with which word. FIxLIP's Banzhaf interactions, and exCLIP's second order.

A map explains a text by patches, and word weights explain an image by words; both sum over the other side. Here the
score of one image and one text is distributed over pairs of a patch and a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.checks import check_counts, one_of, out_of_memory, seeded
from clip_explain.errors import ImageError, MethodError
from clip_explain.explainers.attention import precise
from clip_explain.explainers.integrated import blocks_from, gradient_at
from clip_explain.explainers.registry import check_fits, find_pair_method
from clip_explain.explainers.shapley import HIDDEN
from clip_explain.images import Images, preprocess
from clip_explain.models.embed import tokenize
from clip_explain.models.model import Model
from clip_explain.models.tokenizer import spelled
from clip_explain.models.trace import Trace
from clip_explain.request import Request, WordRequest, tokens_of, words_of

MASK_TOKEN = 289  # stands for a hidden token, as in the code of FIxLIP's authors: "B" at the end of a word, never used
EXACT = 4096  # the largest number of subsets of one side that are all evaluated; of more, a sample is drawn


@dataclass(frozen=True)
class Interactions:
    """The contribution of each pair of a patch and a word to the score of one image and one text; raw, signed, float32.

    `pairs` are the interactions. `patches` and `words` are the effects of single patches and words, averaged over the
    other side. `map` is each patch's contribution with the whole text: its effect and its interactions with all words.
    `names` are the words (or tokens) in reading order.
    """

    names: tuple[str, ...]
    pairs: Float[Tensor, "words grid_h grid_w"]
    patches: Float[Tensor, "grid_h grid_w"]
    words: Float[Tensor, " words"]
    map: Float[Tensor, "grid_h grid_w"]
    score: float


@dataclass(frozen=True)
class Pair:
    """One image and one text: preprocessed pixels, tokens, and which tokens make each word."""

    model: Model
    pixels: Float[Tensor, "1 3 height width"]
    tokens: Int[Tensor, "1 context"]
    members: Bool[Tensor, "words context"]
    names: tuple[str, ...]

    @property
    def grid(self) -> tuple[int, int]:
        patch = self.model.patch_size
        return self.pixels.shape[-2] // patch, self.pixels.shape[-1] // patch


def make_pair(model: Model, pixels: Float[Tensor, "1 3 height width"], text: str, per: str = "word") -> Pair:
    """A pair from preprocessed pixels and a text; `per` is the unit of the text, a "word" or a "token"."""
    one_of("per", per, ("word", "token"))
    tokens = tokenize(model, text)
    request = WordRequest(model, tokens, torch.ones(1, model.embedding_size, device=model.device, dtype=torch.float32))
    _, members = words_of(request) if per == "word" else tokens_of(request)
    names = tuple(spelled(model.vocabulary, tokens[0][group].tolist()) for group in members)
    return Pair(model, pixels, tokens, members, names)


# -- FIxLIP


def fixlip(
    pair: Pair,
    *,
    p: float = 0.5,
    images: int = 1024,
    texts: int = 128,
    hidden: str = "mean",
    batch_size: int = 64,
    generator: torch.Generator | int = 0,
) -> Interactions:
    """FIxLIP (Baniecki et al., NeurIPS 2025): weighted Banzhaf interactions of patches and words.

    Patches and words are players that take part with probability `p` each. The score of those that do is the cosine,
    where hidden patches are 0 in preprocessed pixels and hidden tokens become MASK_TOKEN. The interaction of patch i
    and word j is E[v(S + ij) - v(S + i) - v(S + j) + v(S)], S being drawn from the others; a patch's own effect is
    E[v(S + i) - v(S)]. Both are coefficients of the least-squares fit of v by products of one patch and one word.
    `images` subsets of patches and `texts` subsets of words are drawn (the paper's cross-modal estimator), and every
    one meets every other; where one side has no more subsets than that, all are taken, weighted by their probability,
    and the fit is exact. `hidden="drop"` leaves the tokens of hidden patches out instead, which is about twice as fast.
    MethodError for p that is not between 0 and 1, or counts below 1; ModelError for "drop" where `embed_shown` has it.

    Differs from the authors' code in the fit: their basis also holds pairs within a side. These are orthogonal to the
    pairs across, so they change nothing but the noise of a small sample.
    """
    check_counts(images=images, texts=texts, batch_size=batch_size)
    if not 0 < p < 1:
        raise MethodError(f"got p={p}, expected a probability between 0 and 1")
    one_of("hidden", hidden, HIDDEN)
    source = seeded(generator)
    patches, patch_weights = draw_players(pair.grid[0] * pair.grid[1], p, images, source)
    words, word_weights = draw_players(len(pair.members), p, texts, source)
    with torch.no_grad(), out_of_memory(batch_size):
        embed = embed_dropped if hidden == "drop" else embed_patches
        seen = embed(pair, patches, batch_size).double().cpu()
        said = embed_words(pair, words, batch_size).double().cpu()
        score = float(whole(pair))
    effects = player_effects(patches, patch_weights, p) @ seen  # constant and patches, embedding
    answers = player_effects(words, word_weights, p) @ said
    table = (effects @ answers.T).float()  # (1 + patches, 1 + words)
    pairs, patches = table[1:, 1:].T.unflatten(-1, pair.grid), table[1:, 0].unflatten(0, pair.grid)
    spoken = patches + (1 - p) * pairs.sum(dim=0)  # the fit's players are coded as taking part less p
    return Interactions(pair.names, pairs, patches, table[0, 1:], spoken, score)


def draw_players(
    players: int, p: float, samples: int, generator: torch.Generator
) -> tuple[Bool[Tensor, "sets players"], Float[Tensor, " sets"]]:
    """Sets of players and their weights: all sets with their probabilities, or `samples` drawn ones of more sets."""
    if players < 31 and 2**players <= min(samples, EXACT):
        sets = (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1
        sizes = sets.sum(dim=1)
        return sets, p ** sizes.double() * (1 - p) ** (players - sizes).double()
    drawn = torch.rand(samples, players, generator=generator, device=generator.device, dtype=torch.float32)
    return (drawn < p).cpu(), torch.full((samples,), 1 / samples, dtype=torch.float64)


def player_effects(
    sets: Bool[Tensor, "sets players"], weights: Float[Tensor, " sets"], p: float
) -> Float[Tensor, "effects sets"]:
    """The linear map from the values of sets to a constant and each player's effect, by weighted least squares.

    A player is coded as 1 - `p` if it takes part and as -`p` if not. So the constant is the mean over all sets, and a
    player's effect is that of joining a set of the others drawn with probability p.
    """
    design = torch.cat([torch.ones(len(sets), 1, dtype=torch.float64), sets.double() - p], dim=1)
    root = weights.sqrt()[:, None]
    return torch.linalg.pinv(design * root) * root.T


def embed_patches(pair: Pair, sets: Bool[Tensor, "sets patches"], batch_size: int) -> Float[Tensor, "sets embedding"]:
    """Unit embeddings of the image with only the patches of each set shown."""
    patch, found = pair.model.patch_size, []
    for some in sets.split(batch_size):
        masks = some.unflatten(-1, pair.grid).repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)
        found.append(pair.model.embed_images(pair.pixels * masks[:, None].to(pair.pixels)))
    return torch.cat(found)


def embed_dropped(pair: Pair, sets: Bool[Tensor, "sets patches"], batch_size: int) -> Float[Tensor, "sets embedding"]:
    """The same without the tokens of the other patches."""
    return pair.model.embed_shown(pair.pixels, sets.to(pair.pixels.device), batch_size)


def embed_words(pair: Pair, sets: Bool[Tensor, "sets words"], batch_size: int) -> Float[Tensor, "sets embedding"]:
    """Unit embeddings of the text with only the words of each set; the others become MASK_TOKEN."""
    shown = sets.to(pair.members.device).float() @ pair.members.float() > 0
    hidden = pair.members.any(dim=0) & ~shown
    tokens = pair.tokens.expand(len(sets), -1).masked_fill(hidden, MASK_TOKEN)
    return torch.cat([pair.model.embed_tokens(some) for some in tokens.split(batch_size)])


def whole(pair: Pair) -> Tensor:
    """The cosine of the whole image and the whole text."""
    return (pair.model.embed_images(pair.pixels) * pair.model.embed_tokens(pair.tokens)).sum()


# -- exCLIP


def exclip(pair: Pair, *, layer: int = 11, steps: int = 50) -> Interactions:
    """exCLIP (Moeller et al., TMLR 2025): second-order attributions to pairs of a patch and a token; raw, signed.

    A_ij = sum over channels of (x_i - r_i) J_i . J_j (y_j - r_j) / (|e| |f|), where x and y enter block `layer` of the
    image and the text tower, r are those of a reference (an image of CLIP's mean colour; a text of MASK_TOKENs), J the
    Jacobians of the embeddings e and f, each averaged over `steps` points on the straight way from the reference.
    Summed over all tokens, A is the cosine minus the terms of the references. A word's value is its tokens' sum.
    `patches` and `words` are the sums over the other side, class, start and end token included. MethodError for a layer
    that is not there, or counts below 1.

    Differs from the authors' code in the text's reference, which there is three tokens long, and in the lengths, which
    there may be those of embeddings less their references.
    """
    check_counts(steps=steps)
    nothing = pair.tokens.masked_fill(pair.members.any(dim=0), MASK_TOKEN)
    dummy = torch.ones(1, pair.model.embedding_size, device=pair.model.device, dtype=torch.float32)
    images, texts = Request(pair.model, pair.pixels, dummy), WordRequest(pair.model, pair.tokens, dummy)
    blank, empty = Request(pair.model, torch.zeros_like(pair.pixels), dummy), WordRequest(pair.model, nothing, dummy)
    image, text = (each.trace(layers=blocks_from(each, layer)) for each in (images, texts))
    image_reference, text_reference = (each.trace(layers=blocks_from(each, layer)) for each in (blank, empty))
    seen = token_effects(image, image_reference, steps)  # tokens, embedding
    said = token_effects(text, text_reference, steps)
    table = (said @ seen.T).float()  # text tokens, image tokens
    by_word = pair.members[:, : table.shape[0]].to(table) @ table
    patches = table.sum(dim=0)[1:].unflatten(0, pair.grid)
    pairs, score = by_word[:, 1:].unflatten(-1, pair.grid), float(whole(pair).detach())
    return Interactions(pair.names, pairs, patches, by_word.sum(dim=1), patches, score)


def token_effects(trace: Trace, reference: Trace, steps: int) -> Float[Tensor, "tokens embedding"]:
    """Each token's contribution to each number of the unit embedding: (x - r) times the path's mean Jacobian."""
    end, start = precise(trace.blocks[0].input), precise(reference.blocks[0].input)
    total = end.new_zeros(end.shape[1], trace.embedding.shape[-1], dtype=torch.float64)
    numbers = torch.eye(trace.embedding.shape[-1], dtype=end.dtype, device=end.device)
    with torch.inference_mode(False):
        for step in range(1, steps + 1):
            slope = gradient_at(trace, torch.lerp(start, end, (step - 0.5) / steps), numbers, "dot")
            total += ((end - start)[:, None] * slope).sum(dim=-1)[0].T.double()
    return total / steps / precise(trace.embedding).norm().double()


# -- the call


def explain_pair(
    model: Model, image: Images, text: str, method: str = "fixlip", fit: str | None = None, per: str = "word", **options
) -> Interactions:
    """The contribution of each pair of a patch and a word to the score of one image and one text.

    `image`: a single image, as for `explain`. `per`: the text is cut into units of a "word" or a "token". `options` are
    the method's own. MethodError for a method that does not explain pairs, or for a model that lacks a vision or a text
    transformer; ImageError, TextError.
    """
    found = find_pair_method(method)
    found.check_pair_options(options)
    check_fits(model, found.name)
    pixels = preprocess(model, image, fit)
    if len(pixels) != 1:
        raise ImageError(f"got {len(pixels)} images, expected one: a pair is one image and one text")
    return found.pairs(make_pair(model, pixels, text, per), **options)


def pair_maps(
    model: Model, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str], method: str, **options
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """What a method for pairs says of images alone, in the form of `explain`: the `map` of each image and text.

    `pixels` are preprocessed. MethodError as `explain_pair`.
    """
    found = find_pair_method(method)
    found.check_pair_options(options)
    rows = [[found.pairs(make_pair(model, each, text), **options).map for text in texts] for each in pixels.split(1)]
    return torch.stack([torch.stack(row) for row in rows])
