"""A network in the user's memory: of OpenAI's package, open_clip, transformers, or any with `encode_image`.

Above the loaders of those libraries. The network is not changed; wrappers that only pass calls on are removed from our
view of it.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from clip_explain.errors import ModelError
from clip_explain.models.adapted import Adapted, Family
from clip_explain.models.hugging_face import hugging_face
from clip_explain.models.hugging_face_towers import FAMILIES
from clip_explain.models.model import MEAN, STD, Model
from clip_explain.models.open_clip import open_clip_model, own_texts
from clip_explain.models.open_clip_towers import cell_of, embedding_length
from clip_explain.models.towers import Sizes
from clip_explain.models.weights import clip

Preprocess = Any  # a transform of torchvision's with its Normalize, an image processor of transformers, or (mean, std)


def from_network(network: nn.Module, preprocess: Preprocess = None, tokenizer: Any = None) -> Model:
    """A `Model` of a network in memory, on the device and in the number format that it has.

    `preprocess` says how pixels are normalised; the default is OpenAI's way. `tokenizer` is the network's own; for an
    OpenAI network it may be left out. A network with `encode_image` but of unknown layout is explained by black-box
    methods. ModelError for any other network.
    """
    network = bare(network)
    name, (mean, std) = type(network).__name__, statistics(preprocess)
    if getattr(getattr(network, "config", None), "model_type", None) in FAMILIES:
        return hugging_face(network, tokenizer, preprocess, name)
    if isinstance(network, clip.model.CLIP):
        return Model(network, name, "", tokenizer or clip.clip._tokenizer, mean, std)
    if type(network).__module__.startswith("open_clip."):
        return open_clip_model(network, tokenizer, name, "", mean, std)
    if not callable(getattr(network, "encode_image", None)):
        families = ", ".join(family.name for family in FAMILIES.values())
        raise ModelError(
            f"got a {name}, expected a CLIP of OpenAI's package or of open_clip, one of transformers ({families}), or "
            "a network with encode_image"
        )
    return black_box(network, preprocess, tokenizer, name)


def black_box(network: nn.Module, preprocess: Preprocess, tokenizer: Any, name: str) -> Model:
    """A network of unknown layout, with `encode_image` and perhaps `encode_text`.

    Its input size is read from `preprocess`. ModelError if that has no size.
    """
    side = input_side(preprocess)
    if side is None:
        raise ModelError(f"the input size of a {name} is not known: give preprocess, a transform that resizes to it")
    mean, std = statistics(preprocess)
    sizes = Sizes((side, side), cell_of(side), embedding_length(network, side))
    family = Family(name, lambda _: sizes, lambda network, pixels: network.encode_image(pixels))
    texts = None if tokenizer is None or not hasattr(network, "encode_text") else own_texts(network, tokenizer)
    return Model(Adapted(network, family), name, "", None, mean, std, text_encoder=texts)


def bare(network: nn.Module) -> nn.Module:
    """The network inside torch's DataParallel and compile, and inside peft's wrapper, whose layers stay."""
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return bare(network.module)
    if hasattr(network, "_orig_mod"):
        return bare(network._orig_mod)
    return bare(network.get_base_model()) if hasattr(network, "get_base_model") else network


def statistics(preprocess: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation by which `preprocess` normalises pixels in [0, 1]. ModelError if it has none."""
    if preprocess is None:
        return MEAN, STD
    if isinstance(preprocess, tuple) and len(preprocess) == 2:
        return tuple(preprocess[0]), tuple(preprocess[1])
    for part in (preprocess, *getattr(preprocess, "transforms", ())):
        for mean, std in (("image_mean", "image_std"), ("mean", "std")):
            if hasattr(part, mean) and hasattr(part, std):
                return _floats(getattr(part, mean)), _floats(getattr(part, std))
    raise ModelError(f"got preprocess={type(preprocess).__name__}, expected a transform with Normalize, or (mean, std)")


def input_side(preprocess: Preprocess) -> int | None:
    """The side of the square that a transform makes of an image, by its last crop or resizing."""
    sizes = [part.size for part in getattr(preprocess, "transforms", ()) if hasattr(part, "size")]
    if not sizes:
        return None
    return int(sizes[-1] if isinstance(sizes[-1], int) else sizes[-1][0])


def _floats(values: Tensor | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
