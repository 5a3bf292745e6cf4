"""Slow implementations of NIB, head effects, AttnLRP and exCLIP straight from their papers; see oracles.py.

One image (or text) and one target at a time, explicit sums, in float64.
"""

import torch

import oracles


def parts(state, x, native):
    """Prefix of the names, blocks, grid and pooled place of an image (3 axes) or a text (1)."""
    if x.ndim == 3:
        found, embedding, grid = oracles.image_forward(state, x, native)
        return "visual.", found, embedding, grid, 0
    found, embedding, end = oracles.text_forward(state, x, native)
    return "", found, embedding, None, end


def after(state, prefix, x, layer, depth, native, own):
    """The embedding of tokens x that enter block `layer`."""
    causal = prefix == ""
    for index in range(layer, depth):
        x = oracles.block(state, f"{prefix}transformer.resblocks.{index}", x, native, causal)["output"]
    last, projection = ("visual.ln_post", "visual.proj") if prefix else ("ln_final", "text_projection")
    return oracles.norm(state, last, x[own]) @ state[projection]


def nib(state, x, target, native, layer, steps):
    """Mean over lambda of d cos / d (lambda h), times h, summed over channels, for every token."""
    prefix, found, _, _, own = parts(state, x, native)
    h, total = found[layer]["input"].detach(), 0.0
    for step in range(1, steps + 1):
        point = (h * step / steps).requires_grad_()
        score = oracles.cosine(after(state, prefix, point, layer, len(found), native, own), target)
        total = total + torch.autograd.grad(score, point)[0] / steps
    return (h * total).sum(dim=1)


def head_effects(state, pixels, target, native):
    """Of each layer, head and token: A_hi W_h v_hi by the last layer norm's division, the projection and the target."""
    found, embedding, _ = oracles.image_forward(state, pixels, native)
    last = found[-1]["output"][0]
    deviation = (last.var(unbiased=False) + 1e-5).sqrt()
    rows = []
    for index, each in enumerate(found):
        weight = state[f"visual.transformer.resblocks.{index}.attn.out_proj.weight"]
        width = each["v"].shape[1] // native
        for head in range(native):
            part = slice(head * width, (head + 1) * width)
            for token in range(len(each["v"])):
                added = each["attention"][head, 0, token] * (weight[:, part] @ each["v"][token, part])
                normed = (added - added.mean()) / deviation * state["visual.ln_post.weight"]
                rows.append((normed @ state["visual.proj"] @ target) / embedding.norm())
    return torch.stack(rows).reshape(len(found), native, -1).detach()


def handed_back(x, weight, z, relevance):
    """Epsilon-LRP with epsilon 0 of z = W x + b: R_i = x_i sum_j W_ji R_j / z_j, for rows x."""
    return x * ((relevance / z) @ weight)


def norm_back(state, name, x, relevance):
    """A layer norm whose deviation is a constant: a linear map, then a scale whose bias takes its share."""
    channels = x.shape[-1]
    deviation = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    centre = torch.eye(channels, dtype=x.dtype) - 1 / channels
    z = oracles.norm(state, name, x)
    weight = state[f"{name}.weight"][:, None] * centre
    return torch.stack([handed_back(x[i], weight / deviation[i], z[i], relevance[i]) for i in range(len(x))])


def attn_lrp(state, pixels, target, native):
    """Relevance of the tokens that enter the first block, summed over channels."""
    found, embedding, _ = oracles.image_forward(state, pixels, native)
    last = found[-1]["output"]
    normed = oracles.norm(state, "visual.ln_post", last[:1])
    relevance = torch.zeros_like(last)
    of_normed = normed * (state["visual.proj"] @ target) / embedding.norm()
    relevance[:1] = norm_back(state, "visual.ln_post", last[:1], of_normed)
    for index in reversed(range(len(found))):
        relevance = block_back(state, f"visual.transformer.resblocks.{index}", found[index], relevance, native)
    return relevance.sum(dim=1).detach()


def block_back(state, name, each, relevance, native):
    """AttnLRP through one block, rule by rule."""
    x, channels = each["input"], each["input"].shape[1]
    out, out_bias = state[f"{name}.attn.out_proj.weight"], state[f"{name}.attn.out_proj.bias"]
    attended = each["o"] @ out.T + out_bias
    y = x + attended
    # The MLP and its residual connection: each summand of the output has its share.
    inner = oracles.norm(state, f"{name}.ln_2", y)
    hidden = inner @ state[f"{name}.mlp.c_fc.weight"].T + state[f"{name}.mlp.c_fc.bias"]
    active = hidden * torch.sigmoid(1.702 * hidden)
    added = active @ state[f"{name}.mlp.c_proj.weight"].T + state[f"{name}.mlp.c_proj.bias"]
    share = relevance / (y + added)
    of_hidden = handed_back(active, state[f"{name}.mlp.c_proj.weight"], added, share * added)
    of_inner = handed_back(inner, state[f"{name}.mlp.c_fc.weight"], hidden, of_hidden)
    relevance = share * y + norm_back(state, f"{name}.ln_2", y, of_inner)
    # Attention and its residual connection.
    share = relevance / y
    of_o = handed_back(each["o"], out, attended, share * attended)
    of_qkv = torch.zeros(len(x), 3 * channels, dtype=x.dtype)
    width = channels // native
    for head in range(native):
        part = slice(head * width, (head + 1) * width)
        q, k, v, a = each["q"][:, part], each["k"][:, part], each["v"][:, part], each["attention"][head]
        ratio = of_o[:, part] / each["o"][:, part]
        of_v = 0.5 * v * (a.T @ ratio)
        of_a = 0.5 * a * (ratio @ v.T)
        logits = q @ k.T / width**0.5
        of_logits = logits * (of_a - a * of_a.sum(dim=1, keepdim=True))
        slope = of_logits / logits
        of_q = 0.5 * q * (slope @ k) / width**0.5
        of_k = 0.5 * k * (slope.T @ q) / width**0.5
        for place, found in enumerate((of_q, of_k, of_v)):
            of_qkv[:, place * channels + head * width : place * channels + (head + 1) * width] = found
    z = torch.cat([each["q"], each["k"], each["v"]], dim=1)
    normed = oracles.norm(state, f"{name}.ln_1", x)
    of_normed = handed_back(normed, state[f"{name}.attn.in_proj_weight"], z, of_qkv)
    return share * x + norm_back(state, f"{name}.ln_1", x, of_normed)


def exclip(state, image, text, blank, empty, native, layer, steps):
    """Second-order attributions of every text token and image token, by whole Jacobians."""
    sides = []
    for x, reference in ((text, empty), (image, blank)):
        prefix, found, embedding, _, own = parts(state, x, native)
        end = found[layer]["input"].detach()
        start = parts(state, reference, native)[1][layer]["input"].detach()
        total = 0.0
        for step in range(1, steps + 1):
            point = start + (end - start) * (step - 0.5) / steps
            function = lambda z: after(state, prefix, z, layer, len(found), native, own)  # noqa: B023, E731
            total = total + torch.autograd.functional.jacobian(function, point) / steps
        sides.append(torch.einsum("enc,nc->ne", total, end - start) / embedding.norm())
    return (sides[0] @ sides[1].T).detach()
