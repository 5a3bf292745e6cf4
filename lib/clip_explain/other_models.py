"""Models other than CLIP, presented so that a trace runs them: torchvision's ViT classifiers, BLIP, linear probes.

Above query.py. The explainers stay as they are: GE's appendix E (Fig 12) applies the same formula to these models.

| model | features | score | targets |
|---|---|---|---|
| torchvision ViT | class token after the last layer norm | logit: weight[c] . features (+ bias) | classes |
| linear probe on a CLIP | `encode_image`, not normalised, or at unit length | the same | classes |
| BLIP, image-text contrast (ITC) | class token after norm and `vision_proj` | cosine with `text_proj` of [CLS] | text |

None of the three has attention between image and text on the way to its score, so rollout and GAME go through the
vision blocks' self-attention alone. The blocks stand under OpenAI's names in a `Renamed`, which holds the model's own
modules and parameters: nothing is copied, patched or left changed. Move a model to its device before it is wrapped.
Words are not explained: BLIP's text encoder is a BERT, with its layer norms elsewhere.
"""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from clip_explain.errors import ModelError, TensorError, TextError, WeightsError, nearest
from clip_explain.head import Head
from clip_explain.model import Clip, Images, data_folder, place, preprocess
from clip_explain.query import embed_images, image_features, unit
from clip_explain.trace import trace_image
from clip_explain.weights import checksum, fill, read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BLIP = "Salesforce/blip-itm-base-coco"
RANDOM = "random"


class Renamed(nn.Module):
    """Another library's model, `whole`, and its vision transformer under OpenAI's names, `visual`."""

    def __init__(self, whole: nn.Module, visual: nn.Module):
        super().__init__()
        self.whole, self.visual = whole, visual
        self.register_buffer("logit_scale", torch.zeros((), device=visual.conv1.weight.device))  # exp(0): none learnt

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
        return trace_image(self, pixels).embedding


def load_torchvision(name: str, device: torch.device, dtype: torch.dtype) -> Clip:
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
        path = tag if Path(tag).is_file() else _download_torchvision(arch, tag, weights)
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
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
    try:
        chosen.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of {arch!r} could not be downloaded ({error}). Download {chosen.url} on a machine with a "
            f"network and place the file, under its own name, in {path.parent}; or pass 'torchvision:{arch}/PATH'."
        ) from error
    return path


def vit_classifier(
    network: nn.Module, classes: Sequence[str] | None = None, name: str = "vit", sha256: str = ""
) -> Clip:
    """A torchvision `VisionTransformer`, read where it is, as a classifier; classes are numbered if not named.

    Raises ModelError for another network, and for a stem or head of more than one layer.
    """
    if not isinstance(network, torchvision.models.VisionTransformer):
        raise ModelError(f"got a {type(network).__name__}, expected torchvision's VisionTransformer")
    if not isinstance(network.conv_proj, nn.Conv2d) or len(network.heads) != 1:
        raise ModelError(f"{name} has a stem of several convolutions or a head of several layers, expected one of each")
    head = network.heads.head
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
    return Clip(
        Renamed(network, visual), name, sha256, None, IMAGENET_MEAN, IMAGENET_STD, head=Head(weight, bias, named)
    )


def _vit_block(block: nn.Module) -> nn.Module:
    first, activation, _, second, _ = block.mlp.children()
    mlp = module_of(c_fc=first, gelu=activation, c_proj=second)
    return module_of(ln_1=block.ln_1, attn=block.self_attention, ln_2=block.ln_2, mlp=mlp)


def load_blip(name: str, device: torch.device, dtype: torch.dtype) -> Clip:
    """ "blip:NAME": `BlipForImageTextRetrieval` of transformers: "tiny-blip", a name on the hub or a local folder.

    The default is BLIP's base model for COCO, as in GE Fig 12. Its text encoder stays in float32. BLIP's own
    preprocessing is `fit="squash"`.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ModelError(f"{name!r} needs the package transformers: pip install 'clip-explain[others]'") from error
    name = f"blip:{name.removeprefix('blip:') or BLIP}"
    embedded = data_folder() / "models" / name.removeprefix("blip:")
    source = str(embedded) if embedded.is_dir() else name.removeprefix("blip:")
    try:
        network = transformers.BlipForImageTextRetrieval.from_pretrained(source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the hub's client, the config and the weights each have their own
        raise ModelError(
            f"{name!r} could not be loaded as a BLIP for image-text retrieval: {first_line(error)} Expected a local "
            f"folder with its config, weights and tokenizer, or a name on the hub such as {BLIP!r}, and a network."
        ) from error
    network = place(network, device, torch.float32)
    for part in (network.vision_model, network.vision_proj):
        place(part, device, dtype)
    return blip(network, tokenizer, name, hub_checksum(transformers, source))


def blip(network: nn.Module, tokenizer: Any, name: str = "blip", sha256: str = "") -> Clip:
    """A `BlipForImageTextRetrieval` in eval mode, read where it is; `tokenizer` is its own, of transformers.

    The score is the ITC similarity; there is no learnt scale in it, so `scale_logits` changes nothing. Raises
    ModelError for a network without BLIP's parts or in training mode, whose text encoder would drop at random.
    """
    absent = [
        part for part in ("vision_model", "vision_proj", "text_encoder", "text_proj") if not hasattr(network, part)
    ]
    if absent:
        raise ModelError(f"got a {type(network).__name__} without {', '.join(absent)}, expected BLIP for retrieval")
    if network.training:
        raise ModelError(f"{name} is in training mode: call .eval() first")
    vision = network.vision_model
    visual = module_of(
        conv1=vision.embeddings.patch_embedding,
        class_embedding=vision.embeddings.class_embedding.detach()[0, 0],
        positional_embedding=vision.embeddings.position_embedding.detach()[0],
        ln_pre=nn.Identity(),
        transformer=module_of(resblocks=nn.ModuleList(map(_blip_block, vision.encoder.layers.children()))),
        ln_post=vision.post_layernorm,
        proj=network.vision_proj.weight.detach().T,
        proj_bias=network.vision_proj.bias.detach(),
        image_size=vision.config.image_size,
    )
    return Clip(
        Renamed(network, visual),
        name,
        sha256,
        None,
        embed_texts=lambda *given: _embed_texts(network, tokenizer, *given),
    )


def _blip_block(layer: nn.Module) -> nn.Module:
    own = layer.self_attn
    attn = module_of(
        in_proj_weight=own.qkv.weight, in_proj_bias=own.qkv.bias, out_proj=own.projection, num_heads=own.num_heads
    )
    mlp = module_of(c_fc=layer.mlp.fc1, gelu=layer.mlp.activation_fn, c_proj=layer.mlp.fc2)
    return module_of(ln_1=layer.layer_norm1, attn=attn, ln_2=layer.layer_norm2, mlp=mlp)


def _embed_texts(
    network: nn.Module, tokenizer: Any, texts: list[str], truncate: bool
) -> Float[Tensor, "texts embedding"]:
    """BLIP's ITC features of texts, not normalised: `text_proj` of [CLS]."""
    limit = network.text_encoder.config.max_position_embeddings
    cut = {"truncation": True, "max_length": limit} if truncate else {}
    tokens = tokenizer(texts, padding=True, return_tensors="pt", **cut)
    count = tokens["input_ids"].shape[1]
    if count > limit:
        raise TextError(f"a text has {count} tokens, the model takes {limit}: shorten it, or truncate=True")
    tokens = {key: tokens[key].to(network.text_proj.weight.device) for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return network.text_proj(network.text_encoder(**tokens)[0][:, 0])


def probe(
    model: Clip, weight: Tensor | np.ndarray, bias: Tensor | np.ndarray, classes: Sequence[str], features: str = "raw"
) -> Clip:
    """A linear classifier on a CLIP's image features, to be explained by class: the logit is weight[c] . x + bias[c].

    `weight` (classes, embedding) and `bias` (classes) may be scikit-learn's `coef_` and `intercept_`; of two classes,
    the one row there is the second class's logit, and its negative the first's. `features`: what it was trained on,
    "raw" features as the network's own `encode_image` gives them (CLIP's linear probes), or "unit", as
    `clip_explain.encode_image` does. Raises TensorError or MethodError.
    """
    weight, bias = torch.as_tensor(weight).detach(), torch.as_tensor(bias).detach()
    if len(classes) == 2 and len(weight) == 1:
        weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
    if weight.ndim != 2 or weight.shape[1] != model.embedding_size:
        raise TensorError(f"got weights of {tuple(weight.shape)}, expected (classes, {model.embedding_size})")
    precise = torch.float64 if model.dtype == torch.float64 else torch.float32
    weight, bias = (part.to(model.device, precise) for part in (weight, bias))
    head = Head(weight, bias, tuple(map(str, classes)), features)
    return replace(model, name=f"{model.name} probe", head=head, tokenizer=None, embed_texts=None)


def linear_probe(
    model: Clip, images: Images, labels: Sequence[Any], features: str = "raw", batch_size: int = 64, **options
) -> Clip:
    """`probe` trained by scikit-learn's LogisticRegression, whose `options` may be given, on images and their labels.

    Unless they are given, `tol` is 1e-8 and `max_iter` 5000, so that the fit ends at its optimum. Class i is the
    i-th of the sorted labels. Raises TensorError where images and labels differ in number, or all labels are the same.
    """
    x = torch.cat([image_features(model, pixels) for pixels in _batches(model, images, batch_size)])
    x = (unit(x) if features == "unit" else x).float().cpu().numpy()
    return fitted_probe(model, x, labels, features, **options)


def fitted_probe(
    model: Clip, x: Float[np.ndarray, "images embedding"], labels: Sequence[Any], features: str = "raw", **options
) -> Clip:
    """`linear_probe` where the images' features `x` are at hand, "raw" or "unit" as `features` says."""
    if len(x) != len(labels) or len(set(labels)) < 2:
        raise TensorError(
            f"got {len(x)} images and {len(labels)} labels of {len(set(labels))} classes, expected a label "
            "for each image and two classes or more"
        )
    precise, middle = x.astype(np.float64), x.mean(axis=0, dtype=np.float64)
    # About their mean and in float64 the solver ends where the optimum is, else at a place that the last digits decide.
    fitted = LogisticRegression(**{"max_iter": 5000, "tol": 1e-8, **options}).fit(precise - middle, np.asarray(labels))
    return probe(model, fitted.coef_, fitted.intercept_ - fitted.coef_ @ middle, fitted.classes_.tolist(), features)


def class_logits(model: Clip, images: Images, fit: str = "crop") -> Float[Tensor, "images classes"]:
    """A classifier's logits of all classes, from the trace. ModelError for a model without a head."""
    if model.head is None:
        raise ModelError(f"{model.name} is no classifier: it has no class logits")
    features = embed_images(model, preprocess(model, images, fit)).detach()
    return features @ model.head.weight.T.to(features) + model.head.bias.to(features)


def _batches(model: Clip, images: Images, batch_size: int):
    if not isinstance(images, Tensor | Sequence) or isinstance(images, str):
        images = [images]
    for first in range(0, len(images), batch_size):
        yield preprocess(model, images[first : first + batch_size])


def module_of(**parts) -> nn.Module:
    """A module of these parts: modules, parameters, tensors and plain values, the objects themselves."""
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def _check_classes(classes: Sequence[str] | None, count: int) -> None:
    if classes is not None and len(classes) != count:
        raise ModelError(f"got {len(classes)} names of classes, expected {count}")


def hub_checksum(transformers: Any, source: str) -> str:
    """The checksum of the weights file of a folder or of the hub's cache; empty where it is stored in several."""
    path = transformers.utils.cached_file(source, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    return checksum(path) if path else ""


def first_line(error: Exception) -> str:
    """What an error says first, as one sentence."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".") + "."
