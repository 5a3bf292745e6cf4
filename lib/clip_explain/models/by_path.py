"""CLIPs in a user's own weights file. Facts that the tensors do not contain are asked for and never guessed.

Above network.py. OpenAI's archives are known by their checksums, and a .safetensors file may tell the rest as metadata.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from clip_explain.errors import ModelError
from clip_explain.models.archive import is_torchscript
from clip_explain.models.checkpoints import as_openai
from clip_explain.models.network import HEAD_WIDTH, Architecture, architecture_at, build
from clip_explain.models.weights import clip, expanded, read_weights

# Channels of a block in what OpenAI published, always with heads of 64.
VISION_WIDTHS = (768, 1024)
TEXT_WIDTHS = (512, 640, 768, 1024)
OPENAI_SHA256 = {url.split("/")[-2] for url in clip.clip._MODELS.values()}

Heads = int | tuple[int, int] | None


def load_path(
    path: str | os.PathLike,
    heads: Heads = None,
    activation: str | None = None,
    grid: tuple[int, int] | None = None,
) -> tuple[nn.Module, str]:
    """The network in a weights file, and the file's sha256; the options as in `load`.

    Raises WeightsError; ModelError where an option is needed that is not given.
    """
    path = expanded(path)
    state, sha256 = read_weights(path)
    state = as_openai(state, path)
    told = architecture_at(path)
    image, text = heads if isinstance(heads, tuple) else (heads, heads)
    options = {"vision_heads": image, "text_heads": text, "activation": activation, "grid": grid}
    told = replace(told, **{name: value for name, value in options.items() if value is not None})
    if sha256 not in OPENAI_SHA256:
        _check_heads(state, told, path)
    network = build(state, path, told)
    if told.activation is None and sha256 not in OPENAI_SHA256 and not is_torchscript(path):
        _warn_of_activation(path)
    return network, sha256


def _check_heads(state: Mapping[str, Tensor], told: Architecture, path: Path) -> None:
    """ModelError for a width from which the number of heads cannot be known."""
    towers = {
        "vision": (state.get("visual.class_embedding"), VISION_WIDTHS, told.vision_heads),
        "text": (state.get("ln_final.weight"), TEXT_WIDTHS, told.text_heads),
    }
    for tower, (vector, published, heads) in towers.items():
        if vector is not None and heads is None and len(vector) not in published:
            raise ModelError(
                f"{path} has {len(vector)} channels in its {tower} tower, as no CLIP of OpenAI's, and weights do not "
                f"tell the number of heads. Pass heads=(VISION, TEXT), or save {tower}_heads as metadata of a "
                f".safetensors file: {max(1, len(vector) // HEAD_WIDTH)} if they have {HEAD_WIDTH} channels each; "
                "the vision towers of open_clip's ViT-H, ViT-g and ViT-bigG have 16"
            )


def _warn_of_activation(path: Path) -> None:
    warnings.warn(
        f"{path} does not tell its activation: QuickGELU is taken, as in OpenAI's CLIPs. Most of open_clip's were "
        "trained with activation='gelu'; say which it is (activation='quick_gelu' or 'gelu').",
        stacklevel=4,
    )
