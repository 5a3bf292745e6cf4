"""Models of the package open_clip, in its old layout (2.24) and its batch-first one (2.26 and later).

Above trace.py and request.py: a model is let in only if the trace gives what the model itself computes.
"""

import importlib
import os
from typing import Any

import torch
from torch import Tensor

from clip_explain.errors import ModelError, nearest
from clip_explain.models.embed import image_features
from clip_explain.models.model import DTYPES, MEAN, STD, Model
from clip_explain.models.tokenizer import tokenize
from clip_explain.models.vit import trace_text
from clip_explain.models.weights import fill, read_weights

# The largest relative difference of trace and model: rounding in the number format, and far below another computation.
AGREEMENT = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.1}


def load_open_clip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """ "open_clip:ARCH/TAG", TAG being the name of published weights or a local checkpoint's path.

    ModelError for what is no ViT or ModifiedResNet with a text tower like OpenAI's; for most before any download.
    """
    arch, _, tag = name.removeprefix("open_clip:").partition("/")
    try:
        open_clip = importlib.import_module("open_clip")
    except ImportError as error:
        raise ModelError(f"{name!r} needs the package open_clip: pip install 'clip-explain[open-clip]'") from error
    if arch not in open_clip.list_models():
        raise ModelError(f"open_clip has no architecture {arch!r}: {nearest(arch, open_clip.list_models())}")
    _check_config(arch, open_clip.get_model_config(arch))
    config = {} if os.path.isfile(tag) else open_clip.get_pretrained_cfg(arch, tag)
    if not config and not os.path.isfile(tag):
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ModelError(f"open_clip has no weights {tag!r} for {arch!r}, and no such file: {nearest(tag, tags)}")
    try:
        path = open_clip.download_pretrained(config) if config else tag
    except Exception as error:  # whatever the hub's client raises without a network
        raise ModelError(f"the weights of {name!r} could not be downloaded: {error}") from error
    state, sha256 = read_weights(path)
    precision = {value: key for key, value in DTYPES.items()}[dtype]
    network = open_clip.create_model(arch, precision=precision, force_quick_gelu=bool(config.get("quick_gelu")))
    fill(network, state, source=str(path))
    statistics = tuple(config.get("mean") or MEAN), tuple(config.get("std") or STD)
    network = network.to(device).eval().requires_grad_(False)
    model = Model(network, name, sha256, open_clip.get_tokenizer(arch), *statistics)
    check_agreement(model)
    return model


def _check_config(arch: str, config: dict[str, Any]) -> None:
    """ModelError for an architecture whose configuration says that it is not laid out like OpenAI's CLIP."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    found = {
        "it has a multimodal decoder": config.get("multimodal_cfg"),
        "its text tower is a model of Hugging Face": text.get("hf_model_name"),
        "its image tower is a model of timm": vision.get("timm_model_name"),
        "its image tower pools by attention": vision.get("attentional_pool"),
        "its tokenizer is not CLIP's": text.get("hf_tokenizer_name"),
        "its text's embedding is not that of the end token": text.get("pool_type", "argmax") != "argmax",
        "its text tower looks ahead": text.get("no_causal_mask"),
        "its text tower is built apart (custom_text)": config.get("custom_text"),
    }
    reasons = [reason for reason, holds in found.items() if holds]
    if reasons:
        raise ModelError(f"{arch!r} is not laid out like OpenAI's CLIP, and cannot be explained here: {reasons[0]}")


def check_agreement(model: Model) -> None:
    """ModelError if the trace does not give the features that the model itself computes, of one image and one text."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, model.image_size, model.image_size, generator=generator).to(model.device, model.dtype)
    tokens = tokenize(model, "a photo of a dog")
    with torch.no_grad():
        for part, own, traced in (
            ("image", lambda: model.network.encode_image(pixels), lambda: image_features(model, pixels)),
            ("text", lambda: model.network.encode_text(tokens), lambda: trace_text(model.network, tokens).embedding),
        ):
            try:
                difference = _relative(traced(), own())
            except (AttributeError, RuntimeError, TypeError) as error:
                raise ModelError(f"the {part} tower of {model.name} is not laid out like OpenAI's: {error}") from error
            if not difference < AGREEMENT[model.dtype]:
                raise ModelError(
                    f"the {part} tower of {model.name} computes something else than OpenAI's CLIP (its features differ "
                    f"by {difference:.1g}), and cannot be explained here"
                )


def _relative(got: Tensor, expected: Tensor) -> float:
    got, expected = got.double(), expected.double()
    return float((got - expected).norm() / expected.norm())
