"""Slow float64 implementations of the interveners, one image and target at a time, to check the library against.

As in oracles.py: straight from the papers' equations on a state dict, no code shared with the library. What is random
there (noise, masks, coalitions) is given here.
"""

import torch

from oracles import cosine, image_forward, norm


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
