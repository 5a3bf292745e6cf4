"""CLIPs of transformers, by name on the hub, by folder, or in memory: CLIPModel, SigLIP and their relatives.

Preprocessing and tokenizer come from the model's own files. Its image is fitted by our `fit`: "squash" is SigLIP's own,
"crop" CLIP's.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.checks import import_extra
from clip_explain.errors import ModelError, TextError
from clip_explain.models.adapted import Adapted
from clip_explain.models.adapters import first_line, hub_checksum
from clip_explain.models.hugging_face_towers import FAMILIES
from clip_explain.models.layers import evaluated
from clip_explain.models.model import MEAN, STD, Model
from clip_explain.models.tokenizer import hub_vocabulary

EXAMPLE = "hf:openai/clip-vit-base-patch16"


def load_hugging_face(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """ "hf:NAME": a name on the hub or a local folder with config, weights, tokenizer and image processor.

    Or the folder of a peft adapter, which is merged into the model that it names. ModelError if it cannot be had or is
    of another family than those of FAMILIES.
    """
    transformers = import_extra("transformers", "hugging-face", repr(name))
    folder = name.removeprefix("hf:")
    source = adapted_model(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        check_family(config, name)
        network = with_adapter(transformers.AutoModel.from_pretrained(source), folder, source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        processor = transformers.AutoImageProcessor.from_pretrained(source)
    except ModelError:
        raise
    except Exception as error:  # the hub's client, the config, the weights and the tokenizer each have their own
        raise ModelError(
            f"{name!r} could not be loaded: {first_line(error)} Expected a local folder with config, weights, "
            f"tokenizer and image processor, or a name on the hub such as {EXAMPLE!r}, and a network."
        ) from error
    network = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return hugging_face(network, tokenizer, processor, name, hub_checksum(transformers, source))


def hugging_face(network: nn.Module, tokenizer: Any, processor: Any, name: str, sha256: str = "") -> Model:
    """A network of transformers, read in place, with its own tokenizer and image processor.

    Words cannot be explained without a tokenizer, or if the family's text tower cannot be read. Texts of ChineseCLIP
    and AltCLIP still serve as targets, by the network's own text features. ModelError for another family.
    """
    check_family(network.config, name)
    family = FAMILIES[network.config.model_type]
    vocabulary = None if tokenizer is None or family.text is None else hub_vocabulary(tokenizer)
    mean, std = tuple(getattr(processor, "image_mean", MEAN)), tuple(getattr(processor, "image_std", STD))
    texts = None if tokenizer is None or family.text is not None else own_texts(network, tokenizer)
    return Model(Adapted(network, family, vocabulary), name, sha256, vocabulary, mean, std, text_encoder=texts)


def adapted_model(folder: str) -> str:
    """The name of the model that a folder's peft adapter changes; the folder itself if it holds no adapter."""
    config = Path(folder) / "adapter_config.json"
    if not config.is_file():
        return folder
    try:
        return str(json.loads(config.read_text())["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{config} does not say which model it adapts: {first_line(error)}") from error


def with_adapter(network: nn.Module, folder: str, source: str) -> nn.Module:
    """A network with a folder's adapter merged into its weights; unchanged if the folder holds the network itself."""
    if folder == source:
        return network
    peft = import_extra("peft", "lora", repr(folder))
    return peft.PeftModel.from_pretrained(network, folder).merge_and_unload()


def check_family(config: Any, name: str) -> None:
    """ModelError for a config of another family than those that we read."""
    if config.model_type not in FAMILIES:
        known = ", ".join(family.name for family in FAMILIES.values())
        raise ModelError(f"{name!r} is a model of type {config.model_type!r}, expected one of {known}")


def own_texts(network: nn.Module, tokenizer: Any) -> Callable[[list[str], bool], Float[Tensor, "texts embedding"]]:
    """The network's own text features, by its own tokenizer with a mask of the padding."""
    limit = network.config.text_config.max_position_embeddings
    if network.config.text_config.model_type.startswith("altclip"):
        limit -= 2  # a RoBERTa counts its positions from 2

    def embed(texts: list[str], truncate: bool) -> Float[Tensor, "texts embedding"]:
        cut = {"truncation": True, "max_length": limit} if truncate else {}
        tokens = tokenizer(texts, padding=True, return_tensors="pt", **cut)
        count = tokens["input_ids"].shape[1]
        if count > limit:
            raise TextError(f"a text has {count} tokens, the model takes {limit}: shorten it, or truncate=True")
        device = network.text_projection.weight.device
        given = {key: tokens[key].to(device) for key in ("input_ids", "attention_mask")}
        with torch.no_grad(), evaluated(network):
            found = network.get_text_features(**given)
        return getattr(found, "pooler_output", found)

    return embed
