"""timm's vision transformers, described for the forward of vit.py: open_clip builds SigLIP and others of them.

Only what is read off their parts is described: `describable` says why another network of timm's is not.
"""

import torch
from torch import Tensor, nn

from clip_explain.models.layers import Affine
from clip_explain.models.towers import Layer, Patches, Tower, present


def describable(trunk: nn.Module) -> bool:
    """Whether a network of timm's is a plain ViT: tokens of patches, one class token or none, a known pooling."""
    parts = ("patch_embed", "pos_embed", "blocks", "norm", "global_pool")
    if any(getattr(trunk, part, None) is None for part in parts) or getattr(trunk, "reg_token", None) is not None:
        return False
    plain = all(hasattr(block.attn, "qkv") and hasattr(block.mlp, "fc1") for block in trunk.blocks)
    pooled = trunk.global_pool in ("token", "map")
    normed = any(isinstance(getattr(block.attn, "q_norm", None), nn.LayerNorm) for block in trunk.blocks)
    return plain and pooled and not normed and hasattr(trunk.patch_embed, "proj") and trunk.pos_embed.ndim == 3


def timm_image(trunk: nn.Module, head: nn.Module) -> Tower:
    """The tower of a `describable` trunk, and of open_clip's head behind it."""
    linear = [part for part in (getattr(trunk, "head", None), *head.modules()) if isinstance(part, nn.Linear)]
    weight, bias = (linear[0].weight.detach().T, linear[0].bias) if linear else (None, None)
    layers = tuple(_layer(block) for block in trunk.blocks)
    if trunk.global_pool == "map":
        return Tower(_patches(trunk), (*layers, _head(trunk)), "attention", None, weight, bias)
    return Tower(_patches(trunk), layers, "class", present(trunk.norm), weight, bias)


def _patches(trunk: nn.Module) -> Patches:
    projection, positions = trunk.patch_embed.proj, trunk.pos_embed.detach()[0]
    class_token = None if trunk.cls_token is None else trunk.cls_token.detach()[0, 0]
    if class_token is not None and getattr(trunk, "no_embed_class", False):
        positions = torch.cat([torch.zeros_like(positions[:1]), positions])
    return Patches(
        kernel=projection.weight.detach(),
        bias=None if projection.bias is None else projection.bias.detach(),
        class_token=class_token,
        positions=positions,
        grid=tuple(trunk.patch_embed.grid_size),
        norm=present(trunk.norm_pre),
    )


def _layer(block: nn.Module) -> Layer:
    return Layer(
        module=block,
        heads=block.attn.num_heads,
        norm_1=block.norm1,
        qkv=(block.attn.qkv,),
        out=block.attn.proj,
        norm_2=block.norm2,
        up=block.mlp.fc1,
        activation=block.mlp.act,
        down=block.mlp.fc2,
        scale_1=_scale(block.ls1),
        scale_2=_scale(block.ls2),
    )


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
    )


def _halves(both: nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    biases = (None, None) if both.bias is None else both.bias.chunk(2)
    return list(zip(both.weight.chunk(2), biases, strict=True))


def _scale(module: nn.Module) -> Tensor | None:
    gamma = getattr(module, "gamma", None)
    return None if gamma is None else gamma.detach()
