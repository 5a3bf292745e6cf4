"""ICLIP ("IC", section 3): masked max pooling and dual projections over a frozen image encoder, as a CLIP of its own.

Above dino.py and explainers/masked.py, which has the formulas of eq. 9-10; below training/iclip.py, which trains it. An
ICLIP has two branches, each an image and a text projection, and each is a `Model`: `load("iclip")` is the one that
explains (masked max pooling), `recognition(model)` the one that scores (class token). One projection: both are one.
"""

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip_explain.errors import ModelError, WeightsError, nearest
from clip_explain.models import load
from clip_explain.models.dino import load_dino
from clip_explain.models.embedded import EMBEDDED, embedded_path, read_embedded
from clip_explain.models.layers import layer_norm
from clip_explain.models.model import Model, place
from clip_explain.models.network import architecture_of, block_count, head_count
from clip_explain.models.openai import OPENAI
from clip_explain.models.pooling import attention_mask, pool
from clip_explain.models.vit import trace_image, trace_text
from clip_explain.models.weights import VOCABULARY, clip, fill, read_metadata, read_weights

NAME = "iclip"


def poolings_of(pooling: str, dual: bool) -> tuple[str, ...]:
    """How each branch pools: with dual projections (IC eq. 12-13) the first is the class token."""
    return ("attention", pooling) if dual else (pooling,)


def project(
    pooled: Float[Tensor, "images branches channels"], projections: Float[Tensor, "branches channels embedding"]
) -> Float[Tensor, "images branches embedding"]:
    """Each branch's pooled features by its own projection, IC eq. 12 for class token and pooled token."""
    return torch.einsum("nbc,bce->nbe", pooled, projections)


def features(
    model: Model, pixels: Tensor
) -> tuple[Float[Tensor, "images tokens channels"], Float[Tensor, "images patches"]]:
    """A frozen encoder's tokens after its last layer norm, class token first, and the mask of eq. 9."""
    trace = trace_image(model.network, pixels, tokens="all")
    block = trace.blocks[-1]
    mask = attention_mask(block.attention[:, :, 0, 1:].float(), trace.grid)
    return layer_norm(block.output, trace.tower.norm).float(), mask


# -- the network


def new_text(
    width: int,
    layers: int,
    embed: int,
    branches: int,
    channels: int,
    vocabulary: int = VOCABULARY,
    context: int = 77,
    heads: int | None = None,
) -> nn.Module:
    """What ICLIP trains, at random: OpenAI's text tower, and the projections of all branches.

    `text_projection` holds the branches side by side, (channels, branches x embedding); `image_projection` is
    (branches, channels, embedding).
    """
    heads = head_count(heads, width)
    network = clip.model.CLIP(branches * embed, 32, 1, 64, 32, context, vocabulary, width, heads, layers)
    del network.visual
    network.image_projection = nn.Parameter(channels**-0.5 * torch.randn(branches, channels, embed))
    return network


class Branch(nn.Module):
    """One branch of an ICLIP under the names of OpenAI's CLIP, so that traces and explainers read it as one."""

    def __init__(self, encoder: Model, text: nn.Module, poolings: tuple[str, ...], index: int):
        super().__init__()
        self.encoder, self.text, self.poolings, self.index = encoder, text, poolings, index
        self.image = encoder.network  # so that what is done to all modules of a branch is done to these
        visual, projection = encoder.network.visual, text.image_projection.detach()[index]
        self.visual = _with(visual, proj=projection.to(visual.conv1.weight.dtype))
        self.transformer, self.ln_final = text.transformer, text.ln_final
        self.token_embedding, self.positional_embedding = text.token_embedding, text.positional_embedding
        self.text_projection = nn.Parameter(text.text_projection.detach().chunk(len(poolings), dim=1)[index])
        self.logit_scale, self.context_length = text.logit_scale, text.context_length

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
        tokens, mask = features(self.encoder, pixels)
        return pool(tokens, mask, self.poolings[self.index]) @ self.visual.proj.float()

    def encode_text(self, texts: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
        return trace_text(self, texts).embedding

    def own_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
        """The class token's embedding, as a trace has it, by the encoder's own forward (see agreement.py)."""
        if isinstance(self.visual, clip.model.VisionTransformer):
            return self.visual(pixels)
        return self.encoder.network.encode_image(pixels) @ self.visual.proj

    def own_text(self, texts: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
        """The texts' embedding by the modules' own forwards."""
        dtype = self.text_projection.dtype
        x = self.token_embedding(texts).to(dtype) + self.positional_embedding.to(dtype)
        x = self.ln_final(self.transformer(x.transpose(0, 1)).transpose(0, 1)).to(dtype)
        return x[torch.arange(len(x)), texts.argmax(dim=-1)] @ self.text_projection


def as_clip(encoder: Model, text: nn.Module, poolings: tuple[str, ...], name: str = NAME, sha256: str = "") -> Model:
    """The branch that explains, the last one, of trained parts in eval mode: what `load_iclip` returns."""
    network = Branch(encoder, text, poolings, len(poolings) - 1).eval().requires_grad_(False)
    return Model(network, name, sha256, clip.clip._tokenizer, encoder.mean, encoder.std)


def untrained(model: Model, seed: int) -> Model:
    """An ICLIP as its training from `seed` began: the same encoder, poolings and sizes, all that learns at random.

    ModelError for a model that is not an ICLIP.
    """
    if not isinstance(model.network, Branch):
        raise ModelError(f"{model.name} is not an ICLIP: only of one is it known how its training began")
    own, text = model.network, model.network.text
    weights: Mapping[str, Tensor] = text.state_dict()
    branches, channels, embed = weights["image_projection"].shape
    vocabulary, width = weights["token_embedding.weight"].shape
    blocks = text.transformer.resblocks
    sizes = (width, len(blocks), embed, branches, channels, vocabulary, text.context_length, blocks[0].attn.num_heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = place(new_text(*sizes), model.device, model.dtype)
    return as_clip(own.encoder, start, own.poolings, f"{model.name}, untrained")


def recognition(model: Model) -> Model:
    """The branch of an ICLIP that scores images (IC 3.3: mAP is by the first projections); any other CLIP as it is.

    Score by `encode_image`, which pools as the branch was trained; a trace knows the class token alone.
    """
    if not isinstance(model.network, Branch):
        return model
    own = model.network
    network = Branch(own.encoder, own.text, own.poolings, 0).eval().requires_grad_(False)
    return replace(model, network=network)


def load_iclip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """ "iclip", "iclip:ABLATION" or "iclip:PATH.safetensors", on the image encoder that the file names.

    ABLATION is the end of an embedded file's name, data/models/iclip-ABLATION.safetensors. Raises ModelError or
    WeightsError.
    """
    path = _path(name.partition(":")[2])
    state, sha256 = read_embedded(path.stem) if path == embedded_path(path.stem) else read_weights(path)
    metadata = read_metadata(path)
    made = json.loads(metadata.get("iclip", "null"))
    if made is None:
        raise WeightsError(f"{path} is not an ICLIP: it does not say which encoder and pooling it was trained with")
    heads = architecture_of(metadata, path).text_heads
    text = place(build_text(state, str(path), heads), device, dtype)
    encoder = load_encoder(made["encoder"], device, dtype)
    if made.get("encoder_sha256", encoder.sha256) != encoder.sha256:
        raise WeightsError(f"{path} was trained on another {made['encoder']}: train it anew")
    return as_clip(encoder, text, tuple(made["poolings"]), path.stem, sha256)


def load_encoder(name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """A frozen image encoder: a CLIP that `load` knows (embedded, OpenAI's), else a DINO, as `load_dino` has it."""
    if name in (*EMBEDDED, *OPENAI):
        model = load(name, device, dtype)
        if not model.is_vit:
            raise ModelError(f"masked max pooling needs a vision transformer's attention, and {name} is a ResNet")
        return model
    return load_dino(name, device, dtype)


def build_text(state: Mapping[str, Tensor], source: str = "the state dict", heads: int | None = None) -> nn.Module:
    """`new_text` for a state dict, its shape read from the tensors."""
    absent = [key for key in ("image_projection", "text_projection", "token_embedding.weight") if key not in state]
    if absent:
        raise WeightsError(f"{source} is not an ICLIP: it has no {', '.join(absent)}")
    branches, channels, embed = state["image_projection"].shape
    layers, context = block_count(state), len(state["positional_embedding"])
    vocabulary, width = state["token_embedding.weight"].shape
    with torch.random.fork_rng(devices=[]):
        text = new_text(width, layers, embed, branches, channels, vocabulary, context, heads)
    fill(text, state, source)
    return text


def _path(rest: str) -> Path:
    if rest.endswith(".safetensors"):
        return Path(rest)
    path = embedded_path(f"{NAME}-{rest}" if rest else NAME)
    if not os.path.isfile(path):
        found = sorted(path.parent.glob(f"{NAME}*.safetensors"))
        here = [file.stem.replace(f"{NAME}-", f"{NAME}:") for file in found]
        raise ModelError(f"no trained ICLIP at {path}: {nearest(f'{NAME}:{rest}', here)} Or 'iclip:PATH.safetensors'.")
    return path


def _with(module: nn.Module, **parts: Any) -> nn.Module:
    """The same module with some parts replaced by others; the original stays as it is."""
    twin = copy.copy(module)
    twin._parameters = {key: value for key, value in module._parameters.items() if key not in parts}
    for name, part in parts.items():
        setattr(twin, name, part)
    return twin
