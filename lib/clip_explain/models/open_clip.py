"""Models of the package open_clip, in its old layout (2.24) and its batch-first one (2.26 and later).

A model is accepted only if our trace agrees with the model's own forward; open_clip_towers.py describes its towers.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.checks import import_extra
from clip_explain.errors import ModelError, nearest
from clip_explain.models.adapted import Adapted
from clip_explain.models.adapters import first_line
from clip_explain.models.agreement import check_agreement
from clip_explain.models.model import DTYPES, MEAN, STD, Model
from clip_explain.models.open_clip_towers import is_plain, open_clip_family
from clip_explain.models.tokenizer import Vocabulary, hub_vocabulary, openai_vocabulary
from clip_explain.models.weights import checksum, fill, read_weights


def load_open_clip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """ "open_clip:ARCH/TAG", TAG being the name of published weights or a local checkpoint's path.

    Or "open_clip:hf-hub:ORGANISATION/NAME". ModelError if it is not available, or if our trace does not agree with it.
    """
    open_clip = import_extra("open_clip", "open-clip", repr(name))
    spec = name.removeprefix("open_clip:")
    arch, _, tag = spec.partition("/")
    precision = {value: key for key, value in DTYPES.items()}[dtype]
    if ":" in arch:
        network, sha256 = _from_hub(open_clip, spec, name, precision)
        mean, std = (getattr(network.visual, each, None) for each in ("image_mean", "image_std"))
        arch, statistics = spec, (tuple(mean or MEAN), tuple(std or STD))
    else:
        if arch not in open_clip.list_models():
            raise ModelError(f"open_clip has no architecture {arch!r}: {nearest(arch, open_clip.list_models())}")
        path, config = _weights_file(open_clip, arch, tag, name)
        state, sha256 = read_weights(path)
        network = open_clip.create_model(arch, precision=precision, force_quick_gelu=bool(config.get("quick_gelu")))
        fill(network, state, source=str(path))
        statistics = tuple(config.get("mean") or MEAN), tuple(config.get("std") or STD)
    try:
        tokenizer = open_clip.get_tokenizer(arch)
    except Exception as error:  # those of Hugging Face are downloaded
        raise ModelError(f"the tokenizer of {name!r} could not be had: {first_line(error)}") from error
    network = network.to(device).eval().requires_grad_(False)
    model = open_clip_model(network, tokenizer, name, sha256, *statistics)
    check_agreement(model.network, model.name)
    return model


def open_clip_model(
    network: nn.Module,
    tokenizer: Any,
    name: str,
    sha256: str = "",
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Model:
    """A network of open_clip, read in place, with its tokenizer.

    If its text tower cannot be read, texts still serve as targets, by the network's own features, but words cannot be
    explained.
    """
    if is_plain(network):
        return Model(network, name, sha256, tokenizer, mean, std)
    family = open_clip_family(network)
    readable = family.text is not None and tokenizer is not None
    vocabulary = open_clip_vocabulary(tokenizer) if readable else None
    texts = None if readable or tokenizer is None else own_texts(network, tokenizer)
    return Model(Adapted(network, family, vocabulary), name, sha256, vocabulary, mean, std, text_encoder=texts)


def open_clip_vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of an open_clip tokenizer: OpenAI's, or one of Hugging Face, which is given cleaned texts."""
    if hasattr(tokenizer, "encoder"):
        return openai_vocabulary(tokenizer)
    found = hub_vocabulary(tokenizer.tokenizer)
    return replace(found, encode=lambda text: found.encode(tokenizer.clean_fn(text)))


def own_texts(network: nn.Module, tokenizer: Any) -> Callable[[list[str], bool], Tensor]:
    """The network's own text features, by its own tokenizer, which cuts what is too long.

    ModelError where it calls what transformers 5 no longer has, as those of Hugging Face in open_clip before 3.3 do.
    """

    def embed(texts: list[str], truncate: bool) -> Float[Tensor, "texts embedding"]:
        try:
            tokens = tokenizer(texts)
        except AttributeError as error:
            raise ModelError(
                f"the tokenizer cannot be called ({first_line(error)}) Before version 3.3, open_clip's tokenizers of "
                "Hugging Face need transformers 4: pip install 'open_clip_torch>=3.3'"
            ) from error
        with torch.no_grad():
            return network.encode_text(tokens.to(next(network.parameters()).device)).float()

    return embed


def _weights_file(open_clip: Any, arch: str, tag: str, name: str) -> tuple[str | Path, dict[str, Any]]:
    """The path of the weights, downloaded if necessary, and open_clip's configuration for them."""
    if os.path.isfile(tag):  # unlike pathlib's, False for a name that is too long
        return tag, {}
    config = open_clip.get_pretrained_cfg(arch, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ModelError(f"open_clip has no weights {tag!r} for {arch!r}, and no such file: {nearest(tag, tags)}")
    try:
        return open_clip.download_pretrained(config), config
    except Exception as error:  # whatever the hub's client raises without a network
        raise ModelError(f"the weights of {name!r} could not be downloaded: {error}") from error


def _from_hub(open_clip: Any, spec: str, name: str, precision: str) -> tuple[nn.Module, str]:
    """A network by its name on the hub, and the checksum of its weights; or of a folder, "local-dir:PATH"."""
    try:
        network = open_clip.create_model(spec, precision=precision)
        prefix, _, found = spec.partition(":")
        path = open_clip.pretrained.download_pretrained_from_hf(found) if prefix == "hf-hub" else None
        return network, checksum(path) if path else ""
    except Exception as error:  # whatever the hub's client raises, or open_clip for a config that it cannot read
        raise ModelError(f"{name!r} could not be loaded: {first_line(error)}") from error
