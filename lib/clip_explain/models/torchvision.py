"""torchvision's ViT classifiers, presented so that the forward of vit.py runs them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from clip_explain.errors import ModelError, WeightsError, nearest
from clip_explain.models.adapters import IMAGENET_MEAN, IMAGENET_STD, Renamed, module_of
from clip_explain.models.head import Head
from clip_explain.models.model import Model, place
from clip_explain.models.probe import _check_classes
from clip_explain.models.weights import expanded, fill, read_weights

RANDOM = "random"


def load_torchvision(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """ "torchvision:ARCH/TAG": a ViT of torchvision as a classifier.

    TAG is the name of torchvision's weights, which are downloaded (default: its best), a state dict's path, or "random"
    for seeded random weights. Classes are ImageNet's where there are 1000, else numbers. `preprocess` keeps CLIP's crop
    (short side to the input's size, centre square); torchvision's own first scales the short side up to 256 of 224.
    """
    arch, _, tag = name.removeprefix("torchvision:").partition("/")
    known = [each for each in torchvision.models.list_models() if each.startswith("vit_")]
    if arch not in known:
        raise ModelError(f"no vision transformer {arch!r} in torchvision: {nearest(arch, known)}")
    weights = torchvision.models.get_model_weights(arch)
    if tag == RANDOM:
        network, sha256 = _random_vit(arch), ""
    else:
        path = tag if os.path.isfile(tag) else _download_torchvision(arch, tag, weights)
        state, sha256 = read_weights(path)
        network = _build_vit(arch, state, str(path))
    classes = weights.DEFAULT.meta["categories"]
    network = place(network, device, dtype)
    return vit_classifier(network, classes if len(classes) == network.num_classes else None, name, sha256)


def _random_vit(arch: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.get_model(arch, weights=None)
        nn.init.normal_(network.heads.head.weight, std=network.hidden_dim**-0.5)  # torchvision's is all zero
    return network


def _build_vit(arch: str, state: dict[str, Tensor], source: str) -> nn.Module:
    """The architecture at the input size and with the number of classes of a state dict."""
    try:
        side = round((state["encoder.pos_embedding"].shape[1] - 1) ** 0.5) * state["conv_proj.weight"].shape[-1]
        classes = len(state["heads.head.weight"])
    except KeyError as error:
        raise WeightsError(f"{source} is not a torchvision ViT with a linear head: it has no {error}") from error
    with torch.device("meta"):
        network = torchvision.models.get_model(arch, weights=None, image_size=side, num_classes=classes)
    fill(network, state, source, assign=True)
    return network


def _download_torchvision(arch: str, tag: str, weights: Any) -> Path:
    if tag and tag not in weights.__members__:
        raise ModelError(
            f"torchvision has no weights {tag!r} for {arch!r}, and no such file: "
            f"{nearest(tag, [*weights.__members__, RANDOM])}"
        )
    chosen = weights[tag] if tag else weights.DEFAULT
    expanded("~")  # torch would make a folder of that name
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():  # torchvision's own loader would unpickle it freely
            torch.hub.download_url_to_file(chosen.url, str(path), path.stem.rpartition("-")[2], progress=False)
    except Exception as error:  # whatever a network, a proxy, a full disk or a read-only cache leads to
        raise ModelError(
            f"the weights of {arch!r} could not be downloaded ({error}). Download {chosen.url} on a machine with a "
            f"network and place the file, under its own name, in {path.parent}; or pass 'torchvision:{arch}/PATH'."
        ) from error
    return path


def vit_classifier(
    network: nn.Module, classes: Sequence[str] | None = None, name: str = "vit", sha256: str = ""
) -> Model:
    """A torchvision `VisionTransformer`, read where it is, as a classifier; classes are numbered if not named.

    Raises ModelError for another network, and for a stem or head of more than one layer.
    """
    if not isinstance(network, torchvision.models.VisionTransformer):
        raise ModelError(f"got a {type(network).__name__}, expected torchvision's VisionTransformer")
    if not isinstance(network.conv_proj, nn.Conv2d) or len(network.heads) != 1:
        raise ModelError(f"{name} has a stem of several convolutions or a head of several layers, expected one of each")
    head = network.heads.head
    if type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        raise ModelError(f"the head of {name} is a {type(head).__name__} or has hooks, expected a plain nn.Linear")
    _check_classes(classes, len(head.weight))
    visual = module_of(
        conv1=network.conv_proj,
        class_embedding=network.class_token.detach()[0, 0],
        positional_embedding=network.encoder.pos_embedding.detach()[0],
        ln_pre=nn.Identity(),
        transformer=module_of(resblocks=nn.ModuleList(map(_vit_block, network.encoder.layers.children()))),
        ln_post=network.encoder.ln,
        proj=torch.eye(network.hidden_dim).to(head.weight),
        image_size=network.image_size,
    )
    precise = torch.promote_types(head.weight.dtype, torch.float32)
    weight, bias = head.weight.detach().to(precise), head.bias.detach().to(precise)
    named = tuple(classes or map(str, range(len(weight))))
    renamed, head = Renamed(network, visual, _features), Head(weight, bias, named)
    return Model(renamed, name, sha256, None, IMAGENET_MEAN, IMAGENET_STD, head=head)


def _features(network: nn.Module, pixels: Tensor) -> Tensor:
    """What enters the head in the network's own forward."""
    entered = []
    handle = network.heads.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    try:
        network(pixels)
    finally:
        handle.remove()
    return entered[0]


def _vit_block(block: nn.Module) -> nn.Module:
    first, activation, _, second, _ = block.mlp.children()
    mlp = module_of(c_fc=first, gelu=activation, c_proj=second)
    return module_of(own=block, ln_1=block.ln_1, attn=block.self_attention, ln_2=block.ln_2, mlp=mlp)
