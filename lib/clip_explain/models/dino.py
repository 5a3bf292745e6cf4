"""Self-supervised vision transformers (DINO), embedded or of transformers, presented so that a trace runs them.

Above adapters.py; below iclip.py, whose frozen image encoder they are. They know no texts: a `Model` in form alone.

| | features (`encode_image`) | attention that eq. 9 of ICLIP reads |
|---|---|---|
| "tiny-dino" | class token after the last layer norm | last block, class token to patches |
| transformers' `ViTModel`, "facebook/dino-vitb16" | the same | the same |
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_explain.checks import import_extra
from clip_explain.errors import ModelError, WeightsError
from clip_explain.models.adapters import IMAGENET_MEAN, IMAGENET_STD, Renamed, first_line, hub_checksum, module_of
from clip_explain.models.embedded import embedded_path, read_embedded
from clip_explain.models.model import Model, place
from clip_explain.models.network import architecture_of, block_count, head_count
from clip_explain.models.weights import clip, fill, plain_modes, read_metadata, read_weights

TINY = "tiny-dino"
DINO = "facebook/dino-vitb16"


@plain_modes()
def load_dino(name: str | Path = TINY, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """A DINO: the embedded "tiny-dino", a .safetensors file like it, or a `ViTModel` on the hub or in a folder.

    "facebook/dino-vitb16" is the paper's: patches of 16 px, 224 px, ImageNet without labels. Any of cx.METHODS that
    needs no text may be asked of it; targets are directions in the space of its channels. Raises ModelError or
    WeightsError.
    """
    device = torch.device(device)
    if str(name) == TINY or Path(name).suffix == ".safetensors":
        state, sha256 = read_embedded(TINY) if str(name) == TINY else read_weights(name)
        path = embedded_path(TINY) if str(name) == TINY else Path(name)
        heads = architecture_of(read_metadata(path), path).vision_heads
        return tiny(place(build_visual(state, str(name), heads), device, dtype), Path(name).stem, sha256)
    transformers = import_extra("transformers", "hugging-face", repr(str(name)))
    try:
        network = transformers.ViTModel.from_pretrained(str(name), add_pooling_layer=False)
    except Exception as error:  # the hub's client, the config and the weights each have their own
        raise ModelError(
            f"{str(name)!r} could not be loaded as a DINO: {first_line(error)} Expected {TINY!r}, a local folder with "
            f"config and weights of a ViTModel, or a name on the hub such as {DINO!r}, and a network."
        ) from error
    return dino(place(network, device, dtype), str(name), hub_checksum(transformers, str(name)))


def tiny(visual: nn.Module, name: str = TINY, sha256: str = "") -> Model:
    """A vision transformer of OpenAI's, whose projection is the identity, as `load_dino` returns it."""
    return Model(Renamed(visual, visual, lambda whole, pixels: whole(pixels)), name, sha256, None)


def build_visual(state: Mapping[str, Tensor], source: str = "the state dict", heads: int | None = None) -> nn.Module:
    """OpenAI's vision transformer for a state dict without a projection, which becomes the identity."""
    absent = [key for key in ("conv1.weight", "positional_embedding", "ln_post.weight") if key not in state]
    if absent:
        raise WeightsError(f"{source} is not a vision transformer in OpenAI's layout: it lacks {', '.join(absent)}")
    width, _, patch, _ = state["conv1.weight"].shape
    side = round((len(state["positional_embedding"]) - 1) ** 0.5) * patch
    visual = new_visual(width, block_count(state), patch, side, heads)
    fill(visual, {**state, "proj": torch.eye(width)}, source)
    return visual


def new_visual(width: int, layers: int, patch: int, side: int = 224, heads: int | None = None) -> nn.Module:
    """OpenAI's vision transformer with random weights and the identity for a projection; heads as `head_count` says."""
    visual = clip.model.VisionTransformer(side, patch, width, layers, head_count(heads, width), width)
    visual.proj = nn.Parameter(torch.eye(width), requires_grad=False)
    return visual


def dino(network: nn.Module, name: str = "dino", sha256: str = "") -> Model:
    """A `ViTModel` of transformers, read where it is; only the joined q, k, v weights are copies.

    Raises ModelError for a network without its parts.
    """
    absent = [part for part in ("embeddings", "layers", "layernorm", "config") if not hasattr(network, part)]
    if absent:
        raise ModelError(f"got a {type(network).__name__} without {', '.join(absent)}, expected a ViTModel")
    config, norm = network.config, network.layernorm
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    patch = network.embeddings.patch_embeddings.projection.kernel_size
    visual = module_of(
        conv1=network.embeddings.patch_embeddings.projection,
        class_embedding=network.embeddings.cls_token.detach()[0, 0],
        positional_embedding=network.embeddings.position_embeddings.detach()[0],
        ln_pre=nn.Identity(),
        transformer=module_of(resblocks=nn.ModuleList(_block(layer) for layer in network.layers.children())),
        ln_post=norm,
        proj=torch.eye(config.hidden_size).to(network.embeddings.patch_embeddings.projection.weight),
        image_size=(height, width),
        grid_size=(height // patch[0], width // patch[1]),
    )
    return Model(Renamed(network, visual, _features), name, sha256, None, IMAGENET_MEAN, IMAGENET_STD)


def _features(network: nn.Module, pixels: Tensor) -> Tensor:
    """The class token after the last layer norm, by the network's own forward."""
    return network(pixel_values=pixels).last_hidden_state[:, 0]


def _block(layer: nn.Module) -> nn.Module:
    own = layer.attention
    joined = (own.q_proj, own.k_proj, own.v_proj)
    bias = torch.cat([torch.zeros(len(p.weight)).to(p.weight) if p.bias is None else p.bias for p in joined])
    attn = module_of(
        in_proj_weight=torch.cat([p.weight for p in joined]).detach(),
        in_proj_bias=bias.detach(),
        out_proj=own.o_proj,
        num_heads=own.q_proj.out_features // own.head_dim if hasattr(own, "head_dim") else own.num_attention_heads,
    )
    mlp = module_of(c_fc=layer.mlp.fc1, gelu=layer.mlp.activation_fn, c_proj=layer.mlp.fc2)
    return module_of(own=layer, ln_1=layer.layernorm_before, attn=attn, ln_2=layer.layernorm_after, mlp=mlp)
