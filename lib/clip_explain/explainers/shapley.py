"""Shapley and Banzhaf values of patches, and the loss of the score when a word is left out."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.checks import check_counts, checked, one_of, out_of_memory, seeded
from clip_explain.models.model import unit
from clip_explain.request import Request, SpokenRequest, WordRequest, longest, masked_scores, words_of
from clip_explain.texts import drop_tokens, spoken_words, without_each_word

VALUES = ("shapley", "banzhaf")
HIDDEN = ("mean", "drop")  # what becomes of hidden patches


@checked()
def shapley(
    request: Request,
    *,
    value: str = "shapley",
    samples: int = 2000,
    hidden: str = "mean",
    batch_size: int = 64,
    generator: torch.Generator | int = 0,
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Each patch's contribution to the cosine, as its Shapley or Banzhaf value over sets of patches; raw, signed.

    The score of a set of patches is the cosine with the target when all other patches are 0 in preprocessed pixels,
    CLIP's mean colour. "shapley": the values add up to the image's score minus that of an empty image. "banzhaf": the
    mean difference that the patch makes to all sets of the others. Both are least-squares fits of an additive score to
    `samples` sets, drawn by Shapley's kernel or evenly, each together with its complement. If the grid has no more than
    `samples` sets (3 x 3 has 512), all are used and the fit is exact. With fewer samples than patches the values are
    shrunk towards each other. The same sets serve all images and targets; `generator` may be a seed.

    `hidden="drop"` leaves the tokens of hidden patches out instead, which is about twice as fast; a ViT with a class
    token and without rotary positions takes it.

    Lundberg & Lee 2017 (KernelSHAP, the empty and the full image as constraints); Hammer & Holzman 1992 (Banzhaf). A
    ResNet's patches are 32 pixels, its total stride. MethodError for an option out of range, or out of memory.
    """
    check_counts(samples=samples, batch_size=batch_size)
    one_of("value", value, VALUES)
    one_of("hidden", hidden, HIDDEN)
    patch = request.model.patch_size
    grid = (request.pixels.shape[-2] // patch, request.pixels.shape[-1] // patch)
    sets, weights = draw_sets(grid[0] * grid[1], value, samples, seeded(generator))
    ends = torch.tensor([[False], [True]]).expand(2, sets.shape[1])
    masks = torch.cat([ends, sets]).unflatten(-1, grid).to(request.pixels.device)
    score = dropped_scores if hidden == "drop" else hidden_scores
    scores = score(request, masks, batch_size).double().cpu()
    fit = fit_shapley if value == "shapley" else fit_banzhaf
    values = fit(sets.double().cpu(), weights, scores.flatten(1)).T.unflatten(0, scores.shape[1:])
    return values.unflatten(-1, grid).to(request.targets.device, torch.float32)


def hidden_scores(
    request: Request, masks: Bool[Tensor, "masks grid_h grid_w"], batch_size: int
) -> Float[Tensor, "masks images targets"]:
    """The score of each image with only the patches of each mask, the others being 0 in preprocessed pixels."""
    found = [[] for _ in request.pixels]
    batches = (enlarge(some, request.model.patch_size) for some in masks.split(batch_size))
    for index, _, scores in masked_scores(request, batches, batch_size):
        found[index].append(scores)
    return torch.stack([torch.cat(parts) for parts in found], dim=1)


def dropped_scores(
    request: Request, masks: Bool[Tensor, "masks grid_h grid_w"], batch_size: int
) -> Float[Tensor, "masks images targets"]:
    """The same without the tokens of the other patches."""
    found = []
    with out_of_memory(batch_size):
        for pixels in request.pixels:
            embedded = request.model.embed_shown(pixels[None], masks.flatten(1), batch_size)
            found.append(embedded @ request.targets.T.to(embedded))
    return torch.stack(found, dim=1)


def draw_sets(
    players: int, value: str, samples: int, generator: torch.Generator
) -> tuple[Bool[Tensor, "sets players"], Float[Tensor, " sets"]]:
    """Sets of players and their weights in the fit; see `shapley`. On the CPU; an odd `samples` is rounded up."""
    if players < 31 and 2**players <= max(samples, 2):
        sets = (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1
        sizes = sets.sum(dim=1)
        if value == "banzhaf":
            return sets, torch.ones(len(sets), dtype=torch.float64)
        # Shapley's kernel; the empty and the full set are constraints of the fit and get no weight.
        kernel = [0.0, *(1 / (math.comb(players, k) * k * (players - k)) for k in range(1, players)), 0.0]
        return sets, torch.tensor(kernel, dtype=torch.float64)[sizes]
    pairs, device = -(-samples // 2), generator.device
    draws = torch.rand(pairs, players, generator=generator, device=device, dtype=torch.float32)
    sets = draws < 0.5
    if value == "shapley":
        sizes = torch.arange(1, players, device=device)
        chosen = 1 + (1 / (sizes * (players - sizes))).multinomial(pairs, replacement=True, generator=generator)
        sets = draws.argsort(dim=1).argsort(dim=1) < chosen[:, None]
    sets = torch.cat([sets, ~sets]).cpu()
    return sets, torch.ones(len(sets), dtype=torch.float64)


def fit_shapley(
    sets: Float[Tensor, "sets players"], weights: Float[Tensor, " sets"], scores: Float[Tensor, "all_sets columns"]
) -> Float[Tensor, "players columns"]:
    """Additive fit through the scores of the empty and the full set, which come first in `scores`."""
    empty, full, gain = scores[0], scores[1], scores[2:] - scores[0]
    share = sets.mean(dim=1, keepdim=True)
    above = least_squares(sets - share, weights, gain - share * (full - empty))
    return above - above.mean(dim=0) + (full - empty) / sets.shape[1]


def fit_banzhaf(
    sets: Float[Tensor, "sets players"], weights: Float[Tensor, " sets"], scores: Float[Tensor, "all_sets columns"]
) -> Float[Tensor, "players columns"]:
    """Additive fit with a free constant; the first two rows of `scores`, the empty and the full set, are not used."""
    gain = scores[2:]
    return least_squares(sets - sets.mean(dim=0), weights, gain - gain.mean(dim=0))


def least_squares(x: Tensor, weights: Tensor, y: Tensor) -> Tensor:
    """The smallest solution of the weighted normal equations, which may be singular."""
    weighted = (x * weights[:, None]).T
    return torch.linalg.lstsq(weighted @ x, weighted @ y, driver="gelsd").solution


def enlarge(masks: Bool[Tensor, "masks grid_h grid_w"], patch: int) -> Float[Tensor, "masks height width"]:
    """Masks on the patch grid, enlarged to masks on the pixels."""
    return masks.float().repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)


@checked()
def leave_one_out(request: WordRequest, *, batch_size: int = 256) -> Float[Tensor, "texts images tokens"]:
    """A word's contribution: the cosine of the text minus that of the text without the word; raw, signed, float32.

    The remaining words close up, so later words move. A word of several tokens is dropped as a whole, and its weight is
    divided evenly among its tokens. Start, end and padding are zero. At most `batch_size` texts are embedded at once.
    MethodError out of memory.
    """
    check_counts(batch_size=batch_size)
    owners, dropped = words_of(request)
    with torch.no_grad(), out_of_memory(batch_size):
        shorter = drop_tokens(request.tokens[owners], dropped, request.model.vocabulary).split(batch_size)
        embedded = torch.cat([request.model.embed_tokens(part) for part in shorter])
        whole = unit(request.trace().embedding)[owners]
        change = (whole - embedded) @ request.targets.T.to(whole)
        shares = dropped / dropped.sum(dim=1, keepdim=True)
        weights = change.new_zeros(len(request.tokens), *change.shape[1:], request.tokens.shape[1])
        weights.index_add_(0, owners, change[..., None] * shares[:, None].to(change))
    return weights[..., : longest(request)].float()


@checked()
def leave_one_out_spoken(
    request: SpokenRequest, *, batch_size: int = 256
) -> list[tuple[list[str], Float[Tensor, "images words"]]]:
    """As `leave_one_out`, of texts as they are written, whose tokens are not read: each text's words and weights."""
    check_counts(batch_size=batch_size)
    found = []
    with torch.no_grad(), out_of_memory(batch_size):
        for text in request.texts:
            every = [text, *without_each_word(text)]
            parts = [every[start : start + batch_size] for start in range(0, len(every), batch_size)]
            embedded = torch.cat([request.model.embed_texts(part, request.truncate) for part in parts])
            change = (embedded[:1] - embedded[1:]) @ request.targets.T.to(embedded)
            found.append((spoken_words(text), change.T.float()))
    return found
