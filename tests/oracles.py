"""Slow implementations straight from the papers' equations, one image at a time, to check the library against.

They work on a state dict with OpenAI's names, over all tokens, head by head, with one autograd call per target, and
share no code with the library. Meant for float64.
"""

import torch
from torch.nn import functional as F


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def block(state, name, x, heads, causal):
    """One residual attention block over tokens x (tokens, channels); GE eq. 5 in each head. Everything it computed."""
    tokens, channels = x.shape
    width = channels // heads
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    q, k, v = (weight @ norm(state, f"{name}.ln_1", x).T + bias[:, None]).T.split(channels, dim=1)
    outputs, attentions = [], []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T / width**0.5
        if causal:
            logits = logits + torch.full((tokens, tokens), float("-inf"), dtype=x.dtype).triu(1)
        attentions.append(torch.softmax(logits, dim=1))
        outputs.append(attentions[-1] @ v[:, part])
    o = torch.cat(outputs, dim=1)
    y = x + o @ state[f"{name}.attn.out_proj.weight"].T + state[f"{name}.attn.out_proj.bias"]
    hidden = norm(state, f"{name}.ln_2", y) @ state[f"{name}.mlp.c_fc.weight"].T + state[f"{name}.mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    y = y + hidden @ state[f"{name}.mlp.c_proj.weight"].T + state[f"{name}.mlp.c_proj.bias"]
    return dict(input=x, q=q, k=k, v=v, attention=torch.stack(attentions), o=o, output=y, heads=heads)


def blocks(state, prefix, x, native, single, causal):
    count = len({name.split("resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{prefix}resblocks.")})
    found = []
    for index in range(count):
        heads = 1 if index >= count - single else native
        found.append(block(state, f"{prefix}resblocks.{index}", x, heads, causal))
        x = found[-1]["output"]
    return found


def image_forward(state, pixels, native, single=0):
    """Blocks, embedding and grid of one image (3, height, width); the last `single` blocks have one head."""
    kernel = state["visual.conv1.weight"]
    patch = kernel.shape[-1]
    grid = (pixels.shape[1] // patch, pixels.shape[2] // patch)
    patches = [
        torch.einsum("dchw,chw->d", kernel, pixels[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch])
        for r in range(grid[0])
        for c in range(grid[1])
    ]
    position = state["visual.positional_embedding"]
    side = round((len(position) - 1) ** 0.5)
    if grid != (side, side):
        square = position[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        position = torch.cat([position[:1], resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)])
    x = norm(state, "visual.ln_pre", torch.stack([state["visual.class_embedding"], *patches]) + position)
    found = blocks(state, "visual.transformer.", x.detach().requires_grad_(), native, single, causal=False)
    return found, norm(state, "visual.ln_post", found[-1]["output"])[0] @ state["visual.proj"], grid


def text_forward(state, tokens, native, single=0):
    """Blocks, embedding and end position of one tokenized text (context,), padding included."""
    x = state["token_embedding.weight"][tokens.long()] + state["positional_embedding"][: len(tokens)]
    found = blocks(state, "transformer.", x.detach().requires_grad_(), native, single, causal=True)
    end = int(tokens.argmax())
    return found, norm(state, "ln_final", found[-1]["output"])[end] @ state["text_projection"], end


def cosine(a, b):
    """GE eq. 1."""
    return (a @ b) / (a.norm() * b.norm())


def phi(similarity):
    """Scaled to [0, 1]; GE after eq. 8."""
    return (similarity - similarity.min()) / (similarity.max() - similarity.min())


def grad_eclip_sum(found, embedding, target, own, among, spatial, head=None, relu="sum"):
    """sum_c w_c w_i v_ic over the given blocks, per token; GE eq. 7, eq. 8, inside each head.

    The ReLU is that of the sum over blocks or, with relu="layer", of each block. `own` is the class (or end) token,
    `among` the tokens over which w_i is scaled.
    """
    total = 0.0
    for each in found:
        (slope,) = torch.autograd.grad(cosine(embedding, target), each["o"], retain_graph=True)
        width, own_map = slope.shape[1] // each["heads"], 0.0
        for index in range(each["heads"]):
            if head is not None and index != head:
                continue
            part = slice(index * width, (index + 1) * width)
            w_c, v = slope[own, part], each["v"][:, part]
            w_i = torch.ones(len(v), dtype=v.dtype)
            if spatial == "loose":
                inner = torch.stack([each["q"][own, part] @ each["k"][i, part] for i in range(len(v))])
                w_i = torch.zeros(len(v), dtype=v.dtype).index_copy(0, among, phi(inner[among]))
            if spatial == "softmax":
                w_i = each["attention"][index, own]
            if spatial == "cosine":
                likeness = torch.stack([cosine(each["k"][i], each["q"][own]) for i in range(len(v))])
                w_i = torch.zeros(len(v), dtype=v.dtype).index_copy(0, among, phi(likeness[among]))
            own_map = own_map + torch.stack([(w_c * w_i[i] * v[i]).sum() for i in range(len(v))])
        total = total + (own_map.clamp(min=0) if relu == "layer" else own_map)
    return total.clamp(min=0).detach()


def grad_eclip(state, pixels, target, native, heads="single", layers=1, spatial="loose", head=None, relu="sum"):
    """GE eq. 7 for one image and one target: (grid_h, grid_w)."""
    found, embedding, grid = image_forward(state, pixels, native, layers if heads == "single" else 0)
    patches = torch.arange(1, 1 + grid[0] * grid[1])
    total = grad_eclip_sum(found[-layers:], embedding, target, 0, patches, spatial, head, relu)
    return total[1:].reshape(grid)


def grad_eclip_words(state, tokens, target, native, heads="single", layers=8, spatial="loose", relu="sum"):
    """GE eq. 7 for one text and one image embedding: a weight for each token between start and end."""
    found, embedding, end = text_forward(state, tokens, native, layers if heads == "single" else 0)
    total = grad_eclip_sum(found[-layers:], embedding, target, end, torch.arange(end + 1), spatial, relu=relu)
    return total[1:end]
