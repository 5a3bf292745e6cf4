"""AttnLRP (Achtibat et al., ICML 2024): relevance propagated back through a vision transformer, layer by layer.

Its rules are written as gradients: relevance is input times gradient of a forward in which layer norms divide by a
constant, activations are constant factors, and each factor of a product of two tensors receives half the relevance.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.checks import checked, out_of_memory
from clip_explain.explainers.attention import layer_count, precise
from clip_explain.models.layers import constant, join_heads, linear, scaled
from clip_explain.models.towers import Layer
from clip_explain.models.trace import Trace, gradients, on_grid, pooled_row
from clip_explain.models.vit import project_qkv
from clip_explain.request import Request


@checked()
def attn_lrp(request: Request, *, layers: int | None = None) -> Float[Tensor, "images targets grid_h grid_w"]:
    """AttnLRP of the image: relevance of each patch for the score, summed over channels; raw, signed, float32.

    Relevance goes from the score back to the tokens that enter the last `layers` blocks (None: all blocks). The paper's
    rules: epsilon-LRP with epsilon 0 for linear maps, a Taylor expansion for the softmax, half to each factor of a
    product of two tensors, and all of it through layer norms and activations, which count as constant factors, as does
    the length in the cosine. The relevance of biases is dropped. MethodError for more layers than the model has.

    Differs from the authors' code, which uses the gamma rule in the linear maps of vision transformers: a parameter
    that they tune for each model.
    """
    trace = request.trace(layers=layer_count(request, layers))
    with out_of_memory(len(request.pixels), "{} images at once"), torch.inference_mode(False):
        start = precise(trace.blocks[0].input).clone().requires_grad_()
        with torch.enable_grad():
            embedding = embed_with_rules(trace, start)
        (slope,) = gradients(embedding, [start], request.targets, "dot")
    return on_grid((start.detach()[:, None] * slope).sum(dim=-1), trace)


def embed_with_rules(trace: Trace, x: Float[Tensor, "images tokens channels"]) -> Float[Tensor, "images embedding"]:
    """The embedding as the score compares it, by the forward whose gradients are AttnLRP's rules."""
    tower = trace.tower
    for block in trace.blocks:
        x = block_with_rules(block.layer, x, block.v.shape[1])
    embedding = norm_with_rules(pooled_row(x, trace.pooled), tower.norm)
    if tower.projection is not None:
        embedding = embedding @ constant(tower.projection).to(x)
    if tower.bias is not None:
        embedding = embedding + constant(tower.bias).to(x)
    return embedding / embedding.detach().norm(dim=-1, keepdim=True) if tower.similarity == "cosine" else embedding


def block_with_rules(layer: Layer, x: Tensor, heads: int) -> Float[Tensor, "images tokens channels"]:
    """One residual attention block; see the module's docstring."""
    normed = norm_with_rules(x, layer.norm_1)
    q, k, v = project_qkv(layer, normed, normed, heads)
    attention = product_with_rules(q * q.shape[-1] ** -0.5, k.transpose(-2, -1)).softmax(dim=-1)
    attended = join_heads(product_with_rules(attention, v))
    added = norm_with_rules(linear(norm_with_rules(attended, layer.norm_out), layer.out), layer.after_1)
    x = x + scaled(added, layer.scale_1)
    hidden = mlp_with_rules(layer, norm_with_rules(x, layer.norm_2))
    return x + scaled(norm_with_rules(linear(hidden, layer.down), layer.after_2), layer.scale_2)


def mlp_with_rules(layer: Layer, normed: Tensor) -> Float[Tensor, "images tokens hidden"]:
    """The hidden units as they enter the last map; with a gate, half of the relevance goes to each factor."""
    normed = norm_with_rules(normed, layer.norm_up)
    hidden = linear(normed, layer.up)
    if layer.gate is None:
        hidden = activation_with_rules(layer.activation, hidden)
    else:
        gate = activation_with_rules(layer.activation, linear(normed, layer.gate))
        hidden = 0.5 * (gate * hidden.detach() + gate.detach() * hidden)
    return norm_with_rules(hidden, layer.norm_down)


def norm_with_rules(x: Tensor, norm: nn.Module | None) -> Tensor:
    """A layer norm that divides by a constant; x itself where there is none."""
    if norm is None:
        return x
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.detach().square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    return centred / deviation * constant(norm.weight).to(x) + constant(norm.bias).to(x)


def product_with_rules(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product whose gradients are halved, so that each factor takes half of the relevance."""
    return 0.5 * (a @ b.detach() + a.detach() @ b)


def activation_with_rules(activation: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """An activation as a constant factor of its input; where the input is 0, so is the output."""
    value = activation(hidden.detach())
    factor = torch.where(hidden.detach() == 0, 0.0, value / torch.where(hidden.detach() == 0, 1.0, hidden.detach()))
    return hidden * factor
