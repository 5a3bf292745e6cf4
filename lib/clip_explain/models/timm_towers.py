"""timm's networks that open_clip builds image towers of, described for the forward of vit.py, or as stages.

Only what is read off their parts is described: `describable` says of a network of timm's whether it is.
"""

import copy
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.models.layers import Affine, Linear, evaluated
from clip_explain.models.stages import Stages
from clip_explain.models.towers import Layer, Patches, Tower, mean_head, one_map, present

BLOCKS = ("Block", "EvaBlock", "EvaBlockPostNorm")  # names of timm's classes; the last has its norms behind
CONVOLUTIONAL = {"ConvNeXt": "norm_pre", "FastVit": "final_conv"}  # timm's class -> its part behind the stages
POOLINGS = {"token": "class", "map": "attention", "avg": "mean"}  # in timm's words -> in ours


def describable(trunk: nn.Module) -> bool:
    """Whether a network of timm's is a plain ViT: tokens of patches, one class token or none, a known pooling.

    With rotary positions that are the same in all layers and heads, or without; behind convolutions, or without.
    """
    parts = ("patch_embed", "pos_embed", "blocks", "norm", "global_pool")
    if any(getattr(trunk, part, None) is None for part in parts) or getattr(trunk, "reg_token", None) is not None:
        return False
    cells = type(getattr(trunk.patch_embed, "proj", None)) is nn.Conv2d or hasattr(trunk.patch_embed, "backbone")
    plain = cells and bool(trunk.pos_embed.ndim == 3)
    pooled = trunk.global_pool in POOLINGS and not getattr(trunk, "pool_include_prefix", False)
    rotary = getattr(trunk, "rope", None) is None or not getattr(trunk, "rope_mixed", False)
    return plain and pooled and rotary and all(_is_plain(block) for block in trunk.blocks)


def _is_plain(block: nn.Module) -> bool:
    """Whether a block is made of the parts that `_layer` reads."""
    if type(block).__name__ not in BLOCKS:
        return False
    attention = block.attn
    normed = any(present(getattr(attention, name, None)) is not None for name in ("q_norm", "k_norm"))
    turned = getattr(attention, "rotate_half", False) or getattr(attention, "num_kv_groups", 1) != 1
    mlp = hasattr(block.mlp, "fc2") or type(block.mlp).__name__ == "GeGluMlp"
    return not normed and not turned and getattr(attention, "gate", None) is None and mlp


def pooling_of(trunk: nn.Module) -> str:
    """How a `describable` trunk pools its tokens, in the words of `Tower`."""
    return POOLINGS[trunk.global_pool]


def timm_image(trunk: nn.Module, head: nn.Module) -> Tower:
    """The tower of a `describable` trunk, and of open_clip's head behind it."""
    linear = [part for part in (getattr(trunk, "head", None), *head.modules()) if isinstance(part, nn.Linear)]
    weight, bias = (linear[0].weight.detach().T, linear[0].bias) if linear else (None, None)
    layers, stem = tuple(_layer(block) for block in trunk.blocks), _patches(trunk)
    pooling, norm = pooling_of(trunk), present(trunk.norm)
    if pooling == "attention":
        layers, norm = (*layers, _head(trunk)), None
    if pooling == "mean":
        skipped = 0 if stem.class_token is None else 1
        layers, norm = (*layers, mean_head(norm, layers[-1].out.weight, skipped)), present(trunk.fc_norm)
    rotary = None if getattr(trunk, "rope", None) is None else partial(_rotary, trunk)
    return Tower(stem, layers, pooling, norm, weight, bias, rotary=rotary)


def timm_stages(trunk: nn.Module, head: nn.Module) -> Stages:
    """The stages of a trunk whose class is in CONVOLUTIONAL, and of open_clip's head behind it."""
    after = getattr(trunk, CONVOLUTIONAL[type(trunk).__name__])
    return Stages(trunk.stem, tuple(trunk.stages), lambda features: head(trunk.forward_head(after(features))))


def _patches(trunk: nn.Module) -> Patches:
    embed, positions = trunk.patch_embed, trunk.pos_embed.detach()[0]
    grid = tuple(embed.grid_size)
    class_token = None if trunk.cls_token is None else trunk.cls_token.detach()[0, 0]
    if class_token is not None and getattr(trunk, "no_embed_class", False):
        positions = torch.cat([torch.zeros_like(positions[:1]), positions])
    return Patches(
        embed=partial(_convolved, embed) if hasattr(embed, "backbone") else one_map(embed.proj.weight, embed.proj.bias),
        patch=(embed.img_size[0] // grid[0], embed.img_size[1] // grid[1]),
        class_token=class_token,
        positions=positions,
        grid=grid,
        norm=present(getattr(trunk, "norm_pre", None)),
    )


def _convolved(embed: Any, pixels: Tensor) -> Float[Tensor, "images channels grid_h grid_w"]:
    """The cells of a stem of several convolutions, without a graph, its batch norms with fixed statistics."""
    with torch.no_grad(), evaluated(embed):
        return embed.proj(embed.backbone(pixels.to(next(embed.parameters()))))


def _rotary(trunk: nn.Module, grid: tuple[int, int]) -> Float[Tensor, "two tokens width"]:
    """Sine and cosine for each token of a grid; a class token is not turned."""
    rope = trunk.rope
    if rope.pos_embed is None:
        found = rope.get_embed(shape=list(grid))
    else:  # made for one grid: of another by a copy, so that the network stays as it is
        if grid != tuple(trunk.patch_embed.grid_size):
            rope = copy.deepcopy(rope)
            rope.update_feat_shape(list(grid))
        found = rope.get_embed()
    sine, cosine = found.detach().chunk(2, dim=-1)
    if trunk.cls_token is not None:
        sine = torch.cat([torch.zeros_like(sine[:1]), sine])
        cosine = torch.cat([torch.ones_like(cosine[:1]), cosine])
    return torch.stack([sine, cosine])


def _layer(block: nn.Module) -> Layer:
    attention, mlp = block.attn, block.mlp
    up, gate, down = _mlp(mlp)
    before, after = (block.norm1, block.norm2), (None, None)
    if type(block).__name__ == "EvaBlockPostNorm":
        before, after = after, before
    norm = present(getattr(mlp, "norm", None))
    doubled = type(mlp).__name__ == "GeGluMlp"  # its own norm is its first step, not its last but one
    return Layer(
        module=block,
        heads=attention.num_heads,
        norm_1=before[0],
        qkv=_qkv(attention),
        out=attention.proj,
        norm_2=before[1],
        up=up,
        activation=mlp.act,
        down=down,
        gate=gate,
        scale_1=_scale(block, 1),
        scale_2=_scale(block, 2),
        norm_out=present(getattr(attention, "norm", None)),
        norm_up=norm if doubled else None,
        norm_down=None if doubled else norm,
        after_1=after[0],
        after_2=after[1],
    )


def _qkv(attention: Any) -> tuple[Linear, ...]:
    """One packed map, whose bias EVA keeps apart, or those of q, k and v."""
    if attention.qkv is None:
        return attention.q_proj, attention.k_proj, attention.v_proj
    if getattr(attention, "q_bias", None) is None:
        return (attention.qkv,)
    bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    return (Affine(attention.qkv.weight, bias),)


def _mlp(mlp: Any) -> tuple[Linear, Linear | None, Linear]:
    """The maps of an MLP: into its hidden units, of their gate (two maps, or the halves of one), and out of them."""
    if hasattr(mlp, "w0"):
        return mlp.w1, mlp.w0, mlp.w2
    if hasattr(mlp, "fc1_x"):
        return mlp.fc1_x, mlp.fc1_g, mlp.fc2
    if not hasattr(mlp, "gate_last"):
        return mlp.fc1, None, mlp.fc2
    first, second = (Affine(weight, bias) for weight, bias in _halves(mlp.fc1))
    return (first, second, mlp.fc2) if mlp.gate_last else (second, first, mlp.fc2)


def _head(trunk: nn.Module) -> Layer:
    """The pooling head (`AttentionPoolLatent`): its keys and values are the tokens after the last norm."""
    pool = trunk.attn_pool
    keys, values = (Affine(weight, bias) for weight, bias in _halves(pool.kv))
    return Layer(
        module=pool,
        heads=pool.num_heads,
        norm_1=present(trunk.norm),
        qkv=(pool.q, keys, values),
        out=pool.proj,
        norm_2=present(pool.norm),
        up=pool.mlp.fc1,
        activation=pool.mlp.act,
        down=pool.mlp.fc2,
        query=pool.latent.detach()[0],
        residual=False,
        skipped=_skipped(trunk),
    )


def _skipped(trunk: nn.Module) -> int:
    """How many tokens before the patches the head does not see: timm's ViT leaves them out, its EVA does not."""
    return 0 if trunk.cls_token is None or not hasattr(trunk, "pool_include_prefix") else 1


def _halves(both: nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    biases = (None, None) if both.bias is None else both.bias.chunk(2)
    return list(zip(both.weight.chunk(2), biases, strict=True))


def _scale(block: nn.Module, number: int) -> Tensor | None:
    """Layer scale: a module of timm's ViT, a parameter of its EVA."""
    gamma = getattr(getattr(block, f"ls{number}", None), "gamma", getattr(block, f"gamma_{number}", None))
    return None if gamma is None else gamma.detach()
