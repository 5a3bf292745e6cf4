"""Slow implementations of the readers straight from the papers' equations; see oracles.py, whose forward they use.

One image (or text) and one target at a time, whole matrices, one autograd call per layer. The gradient towards an
attention map is written out: o = A v in each head, so dy/dA = dy/do v^T. Meant for float64.
"""

import torch
from torch.nn import functional as F

import oracles


def forward(state, x, native, single=0):
    """Blocks, embedding, the pooled token and the tokens that are explained, of an image (3 axes) or a text (1)."""
    if x.ndim == 3:
        found, embedding, grid = oracles.image_forward(state, x, native, single)
        return found, embedding, 0, slice(1, None), grid
    found, embedding, end = oracles.text_forward(state, x, native, single)
    return found, embedding, end, slice(1, end), (end - 1,)


def attention_gradient(score, each):
    """dy/dA of one block, (heads, tokens, tokens)."""
    (slope,) = torch.autograd.grad(score, each["o"], retain_graph=True)
    width = slope.shape[1] // each["heads"]
    parts = [slice(head * width, (head + 1) * width) for head in range(each["heads"])]
    return torch.stack([slope[:, part] @ each["v"][:, part].T for part in parts])


def self_attention(state, x, native, single):
    found, _, own, explained, grid = forward(state, x, native, single)
    return found[-1]["attention"].mean(dim=0)[own, explained].reshape(grid)


def rollout(state, x, native, layers):
    """Abnar & Zuidema: the attention with the residual connection, rows of sum 1, multiplied over layers."""
    found, _, own, explained, grid = forward(state, x, native)
    identity = product = torch.eye(len(found[0]["input"]), dtype=torch.float64)
    for each in found[-layers:]:
        factor = each["attention"].mean(dim=0) + identity
        product = (factor / factor.sum(dim=1, keepdim=True)) @ product
    return product[own, explained].reshape(grid)


def game(state, x, target, native, layers, scale, last_gradient=False):
    """EP eq. 4-5, with eq. 6 in place of 4 if `last_gradient`: R = R + A' R, A' = mean over heads of (grad * A)+."""
    found, embedding, own, explained, grid = forward(state, x, native)
    score = scale * oracles.cosine(embedding, target)
    relevance = torch.eye(len(found[0]["input"]), dtype=torch.float64)
    for each in found[-layers:]:
        slope = attention_gradient(score, found[-1] if last_gradient else each)
        weighted = (slope * each["attention"]).clamp(min=0).mean(dim=0)
        relevance = relevance + weighted @ relevance
    return relevance[own, explained].reshape(grid).detach()


def attention_grad_cam(state, pixels, target, native, pooled):
    """EP III-B; `pooled`: EP eq. 1-2 with heads for channels."""
    found, embedding, own, explained, grid = forward(state, pixels, native)
    slope = attention_gradient(oracles.cosine(embedding, target), found[-1])[:, own, explained]
    attention = found[-1]["attention"][:, own, explained]
    if pooled:
        total = sum(slope[head].mean() * attention[head] for head in range(len(slope))).clamp(min=0)
    else:
        total = sum((slope[head] * attention[head]).clamp(min=0) for head in range(len(slope))) / len(slope)
    return total.reshape(grid).detach()


def legrad(state, pixels, target, native, layers, pool):
    """Mean over layers, heads and rows of the positive gradient of each layer's own score."""
    found, _, _, explained, grid = forward(state, pixels, native)
    total = 0.0
    for each in found[-layers:]:
        pooled = each["output"].mean(dim=0) if pool == "mean" else each["output"][0]
        score = oracles.cosine(oracles.norm(state, "visual.ln_post", pooled) @ state["visual.proj"], target)
        total = total + attention_gradient(score, each).clamp(min=0).mean(dim=(0, 1)) / layers
    return total[explained].reshape(grid).detach()


def grad_cam(state, pixels, target, native, layer, heads="native", pool="patches"):
    """EP eq. 1-2 on the tokens entering block `layer`, counted from 0."""
    found, embedding, _, explained, grid = forward(state, pixels, native, int(heads == "single"))
    features = found[layer]["input"]
    (slope,) = torch.autograd.grad(oracles.cosine(embedding, target), features)
    weights = (slope[explained] if pool == "patches" else slope).mean(dim=0)
    return (features[explained] @ weights).clamp(min=0).reshape(grid).detach()


def maskclip(state, pixels, target, native, key_weight):
    """Each patch's value alone through the rest of the last block, and its cosine with the target."""
    found, _, _, explained, grid = forward(state, pixels, native)
    name, last = f"visual.transformer.resblocks.{len(found) - 1}", found[-1]
    weight, bias = state[f"{name}.attn.out_proj.weight"], state[f"{name}.attn.out_proj.bias"]
    y = last["input"] + last["v"] @ weight.T + bias
    hidden = oracles.norm(state, f"{name}.ln_2", y) @ state[f"{name}.mlp.c_fc.weight"].T
    hidden = hidden + state[f"{name}.mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    y = y + hidden @ state[f"{name}.mlp.c_proj.weight"].T + state[f"{name}.mlp.c_proj.bias"]
    projected = oracles.norm(state, "visual.ln_post", y) @ state["visual.proj"]
    similarity = torch.stack([oracles.cosine(token, target) for token in projected])
    if key_weight:
        keys = last["k"] @ weight.T + bias
        similarity = similarity * torch.stack([oracles.cosine(keys[0], key) for key in keys])
    return similarity[explained].reshape(grid).detach()


def itsm(state, pixels, target, native):
    """IC eq. 1-3."""
    found, _, _, explained, grid = forward(state, pixels, native)
    projected = oracles.norm(state, "visual.ln_post", found[-1]["output"]) @ state["visual.proj"]
    return torch.stack([oracles.cosine(token, target) for token in projected[explained]]).reshape(grid).detach()


def resnet_grad_cam(network, pixels, target, stage):
    """EP eq. 1-2 on a stage of the network itself, read by a hook."""
    kept = []
    handle = getattr(network.visual, f"layer{stage}").register_forward_hook(lambda *given: kept.append(given[-1]))
    score = oracles.cosine(network.encode_image(pixels[None])[0], target)
    handle.remove()
    (slope,) = torch.autograd.grad(score, kept)
    alpha = slope[0].mean(dim=(1, 2))
    return sum(alpha[k] * kept[0][0, k] for k in range(len(alpha))).clamp(min=0).detach()


def score_cam(encode, pixels, features, target, scale):
    """Wang et al. eq. 6-8 for one image: the channels of `features` weighted by the softmax of the masked scores."""
    scores = []
    for channel in features:
        mask = F.interpolate(channel[None, None], size=pixels.shape[1:], mode="bilinear", align_corners=True)[0]
        mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
        scores.append(scale * oracles.cosine(encode((pixels * mask)[None])[0], target))
    weights = torch.stack(scores).softmax(dim=0)
    return sum(weights[k] * features[k] for k in range(len(features))).clamp(min=0).detach()


def resnet_tokens(network, pixels):
    """What the model's own pooling sees and gives for one image: its tokens, and q, k and v of each, and the grid."""
    kept = []
    handle = network.visual.layer4.register_forward_hook(lambda *given: kept.append(given[-1][0].detach()))
    network.encode_image(pixels[None])
    handle.remove()
    pool, cells = network.visual.attnpool, kept[0].flatten(1).T
    tokens = torch.cat([cells.mean(dim=0, keepdim=True), cells]) + pool.positional_embedding
    return *(part(tokens).detach() for part in (pool.q_proj, pool.k_proj, pool.v_proj)), kept[0].shape[1:]


def resnet_attention(network, pixels):
    """softmax(q k^T / sqrt(width)) of the mean token in each head of the pooling, mean over heads, cells only."""
    q, k, _, grid = resnet_tokens(network, pixels)
    heads = network.visual.attnpool.num_heads
    rows = [
        torch.softmax(one @ other.T / one.shape[1] ** 0.5, dim=1)[0]
        for one, other in zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1), strict=True)
    ]
    return (sum(rows) / heads)[1:].reshape(grid)


def resnet_maskclip(network, pixels, target):
    _, _, v, grid = resnet_tokens(network, pixels)
    projected = network.visual.attnpool.c_proj(v)
    return torch.stack([oracles.cosine(token, target) for token in projected[1:]]).reshape(grid).detach()


def resnet_itsm(network, pixels, target):
    q, k, v, grid = resnet_tokens(network, pixels)
    pool, parts = network.visual.attnpool, []
    for one, other, value in zip(*(x.chunk(pool.num_heads, dim=1) for x in (q, k, v)), strict=True):
        parts.append(torch.softmax(one @ other.T / one.shape[1] ** 0.5, dim=1) @ value)
    projected = pool.c_proj(torch.cat(parts, dim=1))
    return torch.stack([oracles.cosine(token, target) for token in projected[1:]]).reshape(grid).detach()


def resnet_grad_eclip(network, pixels, target, single):
    """ReLU(sum_c w_c w_i v_ic) of the pooling's mean token (Grad-ECLIP eq. 7-8), one head and one cell at a time."""
    q, k, v, grid = resnet_tokens(network, pixels)
    pool = network.visual.attnpool
    count = 1 if single else pool.num_heads
    width, attended, places = v.shape[1] // count, [], []
    for head in range(count):
        own = slice(head * width, (head + 1) * width)
        logits = k[:, own] @ q[0, own]
        cells = logits[1:]
        places.append((cells - cells.min()) / (cells.max() - cells.min()))
        attended.append(torch.softmax(logits / width**0.5, dim=0) @ v[:, own])
    o = torch.cat(attended).requires_grad_()
    (w_c,) = torch.autograd.grad(oracles.cosine(pool.c_proj(o), target), o)
    weights = torch.zeros(len(v) - 1, dtype=v.dtype)
    for cell in range(len(weights)):
        for c in range(v.shape[1]):
            weights[cell] += w_c[c] * places[c // width][cell] * v[cell + 1, c]
    return weights.clamp(min=0).reshape(grid)
