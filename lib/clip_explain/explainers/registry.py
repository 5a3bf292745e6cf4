"""The methods: one record each, and the look-ups by name. Every list of methods is made from these records.

Importing this module does not import torch; the functions `METHODS[name].image` and `.words` do.
"""

import warnings
from typing import TYPE_CHECKING

from clip_explain.errors import MethodError, nearest
from clip_explain.explainers.method import TOWERS, VITS, Method, Option

if TYPE_CHECKING:
    from clip_explain.models.model import Model

HEADS = ("native", "single")
GE = "Zhao et al., ICML"
EP = "Mamooler, EPFL report"
IC = "Li et al., arXiv"

# -- options that several methods share

ONE_HEAD = Option(
    "heads", "choice", "single", "one head in the layers that are read (the paper), or the model's own", HEADS
)
OWN_HEADS = Option("heads", "choice", "native", "the model's own heads, or one head in the layers that are read", HEADS)
ALL_LAYERS = Option("layers", "layers", None, "how many of the last layers are read", none="all")
SIX_LAYERS = Option("layers", "layers", 6, "how many of the last layers the second path goes through")
SCALE_LOGITS = Option("scale_logits", "switch", True, "the score is the logit, not the cosine")
BATCH = Option("batch_size", "count", 64, "how many inputs are in memory at once", least=1)
SEED = Option("generator", "seed", 0, "from which everything random is drawn", least=0)
HIDDEN = Option(
    "hidden",
    "choice",
    "mean",
    "what becomes of hidden patches: CLIP's mean colour; or they are left out, which takes half the time (some ViTs)",
    ("mean", "drop"),
)
HEAD = Option("head", "head", None, "one head's part of the map with the model's own heads", none="all heads")
SPATIAL = Option(
    "spatial",
    "choice",
    "loose",
    "the spatial weight: query times key, the attention, none, or as the authors' script or notebook has it",
    ("loose", "softmax", "none", "released", "cosine"),
)
LEGRAD_POOL = Option(
    "pool", "choice", "mean", "a layer's score is that of all tokens' mean or of the class token", ("mean", "class")
)
RELU = Option("relu", "choice", "sum", "negative values are cut after layers are summed or in each", ("sum", "layer"))
M2IB_OPTIONS = (
    Option("layer", "layer", 9, "after which layer the bottleneck stands, from 0", least=0, before_last=True),
    Option("beta", "number", 0.1, "the price of information", least=0),
    Option("steps", "count", 10, "steps of Adam", least=1, quick=5),
    Option("lr", "number", 1.0, "Adam's step size", above=0),
    Option("samples", "count", 10, "noises in each step", least=1, quick=4),
    Option("last_update", "switch", True, "read after the last step, not before it as in the authors' code"),
    Option("noise", "tensor", None, "the noise itself, (steps, samples, tokens, channels)", none="drawn"),
    BATCH,
    SEED,
)

NIB_OPTIONS = (
    Option("layer", "layer", 9, "the layer that the features enter, from 0", least=0),
    Option("steps", "count", 10, "points on the way from no features to all", least=1, quick=4),
)

# -- the methods

_RECORDS = (
    Method(
        "self_attention",
        "raw attention",
        "Caron et al., ICCV",
        2021,
        "the last layer's attention from the class token to each patch; the same for every text",
        (OWN_HEADS,),
        (OWN_HEADS, Option("single", "layers", 1, "how many of the last layers have one head if heads='single'")),
        classifiers=True,
        towers=("class", "attention", "resnet"),
    ),
    Method(
        "rollout",
        "Rollout",
        "Abnar & Zuidema, ACL",
        2020,
        "attention followed through all layers; the same for every text",
        (ALL_LAYERS,),
        (ALL_LAYERS,),
        classifiers=True,
        towers=VITS,
    ),
    Method(
        "grad_cam",
        "Grad-CAM",
        "Selvaraju et al., ICCV",
        2017,
        "channels of one layer's features, each weighted by the mean of its gradient",
        (
            Option("layer", "layer", None, "a ViT's block or a ResNet's stage, from 0", least=0, none="the last"),
            Option(
                "variant",
                "choice",
                "grad_cam",
                "how the gradient weighs the features",
                ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "score_cam"),
            ),
            OWN_HEADS,
            Option(
                "pool", "choice", "patches", "the gradient's mean is over patches or all tokens", ("patches", "tokens")
            ),
            Option("scale_logits", "switch", False, "the score is the logit, not the cosine"),
        ),
        classifiers=True,
        towers=VITS + ("resnet", "convolutional"),
    ),
    Method(
        "attention_grad_cam",
        "Grad-CAM on attention",
        EP,
        None,
        "the last layer's attention times its gradient, where that is above 0",
        (Option("pooled", "switch", False, "each head's gradient is averaged first, as Grad-CAM does with channels"),),
        classifiers=True,
        towers=VITS,
    ),
    Method(
        "game",
        "GAME",
        "Chefer et al., ICCV",
        2021,
        "attention times its positive gradient, followed through all layers",
        (ALL_LAYERS, SCALE_LOGITS),
        (ALL_LAYERS, SCALE_LOGITS),
        classifiers=True,
        towers=VITS,
    ),
    Method(
        "all_gradients",
        "GAME, each layer's gradient",
        EP,
        None,
        "GAME through all layers with the cosine as the score",
        classifiers=True,
        towers=VITS,
    ),
    Method(
        "last_gradient",
        "GAME, last gradient",
        EP,
        None,
        "GAME with the last layer's gradient in the place of every layer's own",
        classifiers=True,
    ),
    Method(
        "maskclip",
        "MaskCLIP",
        "Zhou et al., ECCV",
        2022,
        "the cosine of the text and each patch's value, with no attention in the last layer",
        (Option("key_weight", "switch", False, "times the keys' likeness, as in Grad-ECLIP's code; for a ViT"),),
        signed=True,
        towers=VITS + ("resnet",),
    ),
    Method(
        "itsm",
        "ITSM",
        IC,
        2022,
        "the cosine of the text and each patch token",
        signed=True,
        towers=("class", "resnet"),
    ),
    Method(
        "reversed_itsm",
        "Reversed ITSM",
        IC,
        2022,
        "1 less the cosine of the text and each patch token",
        towers=("class", "resnet"),
    ),
    Method(
        "iclip",
        "ICLIP",
        IC,
        2022,
        "the cosine of the text and each patch token, masked by the attention of the last layer",
        (
            Option(
                "norm",
                "choice",
                "image",
                "tokens are divided by an image's norm or each by its own",
                ("image", "token"),
            ),
        ),
        signed=True,
    ),
    Method(
        "legrad",
        "LeGrad",
        "Bousselham et al., ICCV",
        2025,
        "the positive gradient of each layer's own score by its attention, averaged over layers",
        (ALL_LAYERS, LEGRAD_POOL),
        classifiers=True,
        towers=VITS,
    ),
    Method(
        "grad_eclip",
        "Grad-ECLIP",
        GE,
        2024,
        "the last attention's values, weighted by the gradient (channels) and by query times key (places)",
        (ONE_HEAD, Option("layers", "layers", 1, "how many of the last layers are summed"), SPATIAL, HEAD, RELU),
        (ONE_HEAD, Option("layers", "layers", 8, "how many of the last layers are summed"), SPATIAL, HEAD, RELU),
        classifiers=True,
        towers=VITS + ("resnet",),
    ),
    Method(
        "clip_surgery",
        "CLIP Surgery",
        "Li et al., arXiv",
        2023,
        "the cosine of text and patch on a path of value-value attention, less what all texts share",
        (
            SIX_LAYERS,
            Option("feature_surgery", "switch", True, "what the targets have in common is taken away"),
            Option(
                "redundant", "text", None, "texts whose mean is taken away", none="the targets' own", or_tensor=True
            ),
            Option(
                "normalize",
                "choice",
                "channels",
                "the norm is over channels, or tokens as released",
                ("channels", "tokens"),
            ),
        ),
        signed=True,
        by_set=True,
    ),
    Method(
        "gem",
        "GEM",
        "Bousselham et al., CVPR",
        2024,
        "the cosine of text and patch on a path of self-self attention",
        (
            SIX_LAYERS,
            Option("iterations", "count", 1, "how often q, k and v attend to themselves first", least=0),
            Option("temperature", "number", None, "of that attention", above=0, none="adaptive"),
        ),
        signed=True,
    ),
    Method(
        "m2ib",
        "M2IB",
        "Wang et al., NeurIPS",
        2023,
        "how much information each patch lets through a bottleneck that is trained for the text",
        M2IB_OPTIONS,
        M2IB_OPTIONS,
        slow=True,
        towers=VITS,
    ),
    Method(
        "rise",
        "RISE",
        "Petsiuk et al., BMVC",
        2018,
        "the mean score of the image under random masks that show a pixel",
        (
            Option(
                "masks", "count", 2000, "how many masks are drawn, or the masks", least=1, or_tensor=True, quick=200
            ),
            Option("cells", "count", 8, "cells of a mask in each direction", least=1),
            Option("keep", "number", 0.5, "the probability that a cell is shown", above=0, most=1),
            Option("center", "switch", False, "the mean score is taken away first", quick=True),
            BATCH,
            SEED,
        ),
        classifiers=True,
        slow=True,
        towers=tuple(TOWERS),
    ),
    Method(
        "shapley",
        "Shapley values",
        "Lundberg & Lee, NeurIPS",
        2017,
        "what each patch adds to the score, averaged over sets of other patches that are hidden with it",
        (
            Option("value", "choice", "shapley", "how sets of patches are weighted", ("shapley", "banzhaf")),
            Option("samples", "count", 2000, "how many sets are drawn", least=1, quick=400),
            HIDDEN,
            BATCH,
            SEED,
        ),
        classifiers=True,
        signed=True,
        slow=True,
        towers=tuple(TOWERS),
    ),
    Method(
        "nib",
        "NIB",
        "Zhu et al., ICLR",
        2025,
        "features of one layer times their gradient, averaged while the features are let through more and more",
        NIB_OPTIONS,
        NIB_OPTIONS,
        classifiers=True,
        signed=True,
    ),
    Method(
        "head_effects",
        "Head effects",
        "Gandelsman et al., ICLR",
        2024,
        "what each patch adds to the score directly, through the attention heads of the last layers",
        (
            Option("layers", "layers", None, "how many of the last layers are summed", none="all"),
            Option("head", "head", None, "one head of each layer alone", none="all heads"),
        ),
        classifiers=True,
        signed=True,
    ),
    Method(
        "attn_lrp",
        "AttnLRP",
        "Achtibat et al., ICML",
        2024,
        "relevance handed back from the score to the patches, layer by layer, by fixed rules",
        (ALL_LAYERS,),
        classifiers=True,
        signed=True,
    ),
    Method(
        "fixlip",
        "FIxLIP",
        "Baniecki et al., NeurIPS",
        2025,
        "what a patch and a word add to the score together, averaged over sets of the others that are hidden",
        None,
        pair_options=(
            Option("p", "number", 0.5, "the probability with which a patch or a word takes part", above=0, most=1),
            Option("images", "count", 1024, "how many sets of patches are drawn", least=1, quick=400),
            Option("texts", "count", 128, "how many sets of words are drawn", least=1, quick=64),
            HIDDEN,
            BATCH,
            SEED,
        ),
        towers=VITS,
        signed=True,
        slow=True,
    ),
    Method(
        "exclip",
        "exCLIP",
        "Moeller et al., TMLR",
        2025,
        "what a patch and a word add to the score together, by gradients of both embeddings along a path",
        None,
        pair_options=(
            Option("layer", "layer", 11, "the layer of both towers that is read, from 0", least=0),
            Option("steps", "count", 50, "points on the path", least=1, quick=10),
        ),
        towers=VITS,
        signed=True,
        slow=True,
    ),
    Method(
        "leave_one_out",
        "leave one out",
        "Li et al., arXiv",
        2016,
        "what the score loses without a word",
        None,
        (Option("batch_size", "count", 256, "how many texts are in memory at once", least=1),),
        signed=True,
        spoken=True,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _RECORDS}

# Names of earlier releases -> present names. The old names still work, with a warning.
OLD_NAMES = {"images": {"occlusion": "shapley"}, "words": {"occlusion": "leave_one_out"}}


def names_of(words: bool = False) -> list[str]:
    """The names of all methods that explain images, or words."""
    return [name for name, each in METHODS.items() if (each.word_options if words else each.options) is not None]


def names_of_pairs() -> list[str]:
    """The names of all methods that explain pairs of a patch and a word."""
    return [name for name, each in METHODS.items() if each.pair_options is not None]


# Options after a method's name -> how figures say it.
SAID = {
    "spatial=none": " w/o w_i",
    "spatial=softmax": ", softmax for w_i",
    "spatial=cosine": ", cosine for w_i",
    "heads=native": ", own heads",
    "heads=single": ", one head",
}


def title_of(name: str) -> str:
    """What figures call a method: "game" is "GAME", and "grad_eclip spatial=none" is "Grad-ECLIP w/o w_i", as in GE.

    Other words after a name are kept ("game, words" is "GAME, words"), and names of no method.
    """
    method = name.replace(",", " ").split(" ")[0]
    if method not in METHODS:
        return name
    rest = name.removeprefix(method)
    for option, said in SAID.items():
        rest = rest.replace(f" {option}", said)
    return METHODS[method].title + rest


def find_method(name: str, words: bool = False) -> Method:
    """The method of this name for images, or for words. MethodError for an unknown name; an old one only warns."""
    old = OLD_NAMES["words" if words else "images"]
    if name in old:
        warnings.warn(f"the method {name!r} is now called {old[name]!r}", DeprecationWarning, stacklevel=3)
        name = old[name]
    known = names_of(words)
    if name not in known:
        raise MethodError(f"unknown method {name!r}: {nearest(name, known)}")
    return METHODS[name]


def find_pair_method(name: str) -> Method:
    """The method of this name for pairs of a patch and a word. MethodError for another name."""
    known = names_of_pairs()
    if name not in known:
        raise MethodError(f"unknown method {name!r} for pairs of patches and words: {nearest(name, known)}")
    return METHODS[name]


def methods_for(model: "Model", words: bool = False) -> list[str]:
    """The names of all methods that take this model; for words, none where it embeds no texts."""
    return [name for name in names_of(words) if _reason_against(model, METHODS[name], words) is None]


def check_fits(model: "Model", method: str, words: bool = False) -> None:
    """MethodError if the method does not support this model, for images (or pairs) or for words."""
    reason = _reason_against(model, METHODS[method], words)
    if reason is None:
        return
    fitting = [] if METHODS[method].pair_options is not None else methods_for(model, words)
    raise MethodError(f"{method} {reason}" + (f", for which fit: {', '.join(fitting)}" if fitting else ""))


def _reason_against(model: "Model", method: Method, words: bool) -> str | None:
    if words:
        return _reason_against_words(model, method)
    if method.pair_options is not None and not model.tokenizer:
        return f"needs a text tower like CLIP's: {model.name} has none, its words cannot be explained"
    if model.encoder not in method.towers:
        return f"needs {method.encoders} and {model.name} is {TOWERS[model.encoder]}"
    if model.head is not None and not method.classifiers:
        return f"does not explain a class logit and {model.name} is a classifier"
    return None


def _reason_against_words(model: "Model", method: Method) -> str | None:
    if model.tokenizer or (method.spoken and model.text_encoder is not None):
        return None
    has = "has none that is read" if model.text_encoder else "has none"
    return f"needs a text tower like CLIP's: {model.name} {has}, its words cannot be explained so"
