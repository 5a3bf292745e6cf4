"""Slow float64 implementations of the interveners, one image and target at a time, to check the library against.

As in oracles.py: straight from the papers' equations on a state dict, no code shared with the library. What is random
there (noise, masks, coalitions) is given here.
"""

import itertools
import math

import torch
from skimage.transform import resize

from oracles import block, cosine, image_forward, norm, text_forward


def second_path(state, found, index_from, attend):
    """Tokens' embeddings on the second path: x plus each block's projected `attend(q, k, v, x)`, head by head."""
    x = found[index_from]["input"]
    for index in range(index_from, len(found)):
        each, name = found[index], f"visual.transformer.resblocks.{index}"
        width = x.shape[1] // each["heads"]
        parts = [slice(head * width, (head + 1) * width) for head in range(each["heads"])]
        normed = norm(state, f"{name}.ln_1", each["input"])
        joined = torch.cat([attend(*(each[s][:, part] for s in "qkv"), normed) for part in parts], dim=1)
        x = x + joined @ state[f"{name}.attn.out_proj.weight"].T + state[f"{name}.attn.out_proj.bias"]
    return norm(state, "visual.ln_post", x) @ state["visual.proj"]


def clip_surgery(state, pixels, targets, native, layers, feature_surgery=True, redundant=None, normalize="channels"):
    """Li et al. 2023, with the features of every class and their mean over the classes written out."""
    found, embedding, grid = image_forward(state, pixels, native)
    features = second_path(
        state, found, len(found) - layers, lambda q, k, v, x: torch.softmax(v @ v.T / v.shape[1] ** 0.5, dim=1) @ v
    )
    features = torch.cat([embedding[None], features[1:]])
    features = features / features.norm(dim=1 if normalize == "channels" else 0, keepdim=True)
    class_token, patches = features[0], features[1:]
    if not feature_surgery:
        maps = [patches @ target for target in targets]
    elif redundant is not None:
        maps = [patches @ (target - redundant) for target in targets]
    else:
        chance = torch.softmax(torch.stack([2 * class_token @ target for target in targets]), dim=0)
        weights = chance / chance.mean()
        products = [patches * target * weight for target, weight in zip(targets, weights, strict=True)]
        common = torch.stack(products).mean(dim=0)
        maps = [(product - common).sum(dim=1) for product in products]
    return torch.stack(maps).reshape(len(targets), *grid).detach()


def gem(state, pixels, targets, native, layers, iterations=1, temperature=None):
    """Bousselham et al. 2024."""
    found, _, grid = image_forward(state, pixels, native)

    def attend(q, k, v, x):
        t = temperature or v.shape[1] ** 0.5 / torch.stack([token.norm() for token in x]).mean()
        outputs = []
        for s in (q, k, v):
            for _ in range(iterations):
                s = s / s.norm(dim=1, keepdim=True)
                s = torch.softmax(s @ s.T / t, dim=1) @ s
            s = s / s.norm(dim=1, keepdim=True)
            outputs.append(torch.softmax(s @ s.T / t, dim=1) @ v)
        return sum(outputs) / 3

    patches = second_path(state, found, len(found) - layers, attend)
    maps = [torch.stack([cosine(patch, target) for patch in patches[1:]]) for target in targets]
    return torch.stack(maps).reshape(len(targets), *grid).detach()


def image_cosine(state, pixels, target, native):
    return cosine(image_forward(state, pixels, native)[1], target).item()


def rise(state, pixels, target, native, masks, keep, center=False):
    """Petsiuk et al. 2018, eq. 6, with the masks given; centred, each score counts by what it is above the mean."""
    scores = [image_cosine(state, pixels * mask, target, native) for mask in masks]
    level = sum(scores) / len(scores) if center else 0
    return sum((score - level) * mask for score, mask in zip(scores, masks, strict=True)) / (keep * len(masks))


def rise_mask(kept, shift, size):
    """One mask of RISE, sec. 3.2: a grid of kept cells, resized by the authors' own call, cut out at a shift."""
    cells = len(kept)
    height, width = (math.ceil(side / cells) for side in size)
    size_up = ((cells + 1) * height, (cells + 1) * width)
    large = torch.from_numpy(resize(kept.double().numpy(), size_up, order=1, mode="reflect", anti_aliasing=False))
    return large[shift[0] : shift[0] + size[0], shift[1] : shift[1] + size[1]]


def patch_game(state, pixels, target, native):
    """The score of a set of patches (indices), all others being zero."""
    patch = state["visual.conv1.weight"].shape[-1]
    columns = pixels.shape[2] // patch

    def score(members):
        seen = torch.zeros_like(pixels)
        for member in members:
            row, column = divmod(member, columns)
            place = (slice(None), *(slice(at * patch, (at + 1) * patch) for at in (row, column)))
            seen[place] = pixels[place]
        return image_cosine(state, seen, target, native)

    return {members: score(members) for members in subsets(range(pixels.shape[1] // patch * columns))}


def subsets(players):
    return [some for size in range(len(players) + 1) for some in itertools.combinations(players, size)]


def shapley(game, players):
    """Shapley 1953: sum over the sets S without i of |S|! (n - |S| - 1)! / n! (v(S with i) - v(S))."""
    values = torch.zeros(players, dtype=torch.float64)
    for i in range(players):
        for some in subsets([j for j in range(players) if j != i]):
            orders = math.factorial(len(some)) * math.factorial(players - len(some) - 1) / math.factorial(players)
            values[i] += orders * (game[tuple(sorted((*some, i)))] - game[some])
    return values


def banzhaf(game, players):
    """Banzhaf 1965: the mean of v(S with i) - v(S) over the sets S without i."""
    values = torch.zeros(players, dtype=torch.float64)
    for i in range(players):
        for some in subsets([j for j in range(players) if j != i]):
            values[i] += (game[tuple(sorted((*some, i)))] - game[some]) / 2 ** (players - 1)
    return values


def constrained_fit(sets, gains, total):
    """min sum (gain - z . phi)^2 with sum phi = total, by its Lagrangian (KKT) equations."""
    sets = sets.double()
    players = sets.shape[1]
    system = torch.zeros(players + 1, players + 1, dtype=torch.float64)
    system[:players, :players] = 2 * sets.T @ sets
    system[:players, players] = system[players, :players] = 1
    right = torch.cat([2 * sets.T @ gains, torch.tensor([total], dtype=torch.float64)])
    return torch.linalg.solve(system, right)[:players]


def free_fit(sets, scores):
    """min sum (score - c - z . phi)^2."""
    design = torch.cat([torch.ones(len(sets), 1, dtype=torch.float64), sets.double()], dim=1)
    return torch.linalg.lstsq(design, scores[:, None]).solution[1:, 0]


def m2ib(state, tower, found, pooled, target, layer, beta, lr, noise, last_update=True):
    """Wang et al. 2023: Adam (Kingma & Ba 2015) on alpha of one input's tokens f leaving a block; the KL per token.

    `tower`: prefix of the blocks, name of the last norm, the projection, heads, causal. `noise`: (steps, samples,
    tokens, channels).
    """
    prefix, norm_name, projection, native, causal = tower
    features = found[layer]["output"].detach()
    alpha = torch.full_like(features, 5.0).requires_grad_()

    def kl():
        passing = torch.sigmoid(alpha)
        mean, variance = passing * features, (1 - passing) ** 2
        return 0.5 * (mean**2 + variance - torch.log(variance) - 1)

    def after(x):
        for index in range(layer + 1, len(found)):
            x = block(state, f"{prefix}resblocks.{index}", x, native, causal)["output"]
        return norm(state, norm_name, x)[pooled] @ projection

    moment = variance = torch.zeros_like(features)
    for step, some in enumerate(noise, 1):
        if step == len(noise) and not last_update:
            return kl().sum(dim=1).detach()
        passing = torch.sigmoid(alpha)
        fit = sum(cosine(after(passing * features + (1 - passing) * e), target) for e in some) / len(some)
        (slope,) = torch.autograd.grad(beta * kl().mean() - fit, alpha)
        moment, variance = 0.9 * moment + 0.1 * slope, 0.999 * variance + 0.001 * slope**2
        change = moment / (1 - 0.9**step) / ((variance / (1 - 0.999**step)).sqrt() + 1e-8)
        alpha = (alpha - lr * change).detach().requires_grad_()
    return kl().sum(dim=1).detach()


def m2ib_image(state, pixels, target, native, layer, beta, lr, noise, last_update=True):
    found, _, grid = image_forward(state, pixels, native)
    tower = ("visual.transformer.", "visual.ln_post", state["visual.proj"], native, False)
    return m2ib(state, tower, found, 0, target, layer, beta, lr, noise, last_update)[1:].reshape(grid)


def m2ib_words(state, tokens, target, native, layer, beta, lr, noise):
    """Without the padding, which the text does not see; weights of the tokens between start and end."""
    end = int(tokens.argmax())
    found, _, _ = text_forward(state, tokens[: end + 1], native)
    tower = ("transformer.", "ln_final", state["text_projection"], native, True)
    return m2ib(state, tower, found, end, target, layer, beta, lr, noise[:, :, : end + 1])[1:end]
