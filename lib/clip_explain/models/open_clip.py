"""Models of the package open_clip, in its old layout (2.24) and its batch-first one (2.26 and later).

Above trace.py and request.py: a model is let in only if the trace gives what the model itself computes.
"""

import importlib
import os
from typing import Any

import torch

from clip_explain.errors import ModelError, nearest
from clip_explain.models.agreement import check_agreement
from clip_explain.models.model import DTYPES, MEAN, STD, Model
from clip_explain.models.weights import fill, read_weights


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
