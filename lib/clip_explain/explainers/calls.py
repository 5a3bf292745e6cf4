"""The registries of explainers, and the two calls that look one up and run it."""

import inspect
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import out_of_memory
from clip_explain.directions import Targets
from clip_explain.errors import MethodError, nearest
from clip_explain.explainers.attention import rollout, rollout_words, self_attention, self_attention_words
from clip_explain.explainers.grad_cam import grad_cam
from clip_explain.explainers.grad_eclip import grad_eclip, grad_eclip_words
from clip_explain.explainers.gradients import all_gradients, attention_grad_cam, game, game_words, last_gradient, legrad
from clip_explain.explainers.iclip import iclip
from clip_explain.explainers.m2ib import m2ib, m2ib_words
from clip_explain.explainers.rise import rise
from clip_explain.explainers.shapley import occlusion, occlusion_words
from clip_explain.explainers.similarity import itsm, maskclip, reversed_itsm
from clip_explain.explainers.surgery import clip_surgery, gem
from clip_explain.images import Images
from clip_explain.models.model import Model
from clip_explain.models.tokenizer import vocabulary_of
from clip_explain.request import make_request, make_word_request, tokens_of, words_of
from clip_explain.texts import BARE, Templates

EXPLAINERS: dict[str, Callable[..., Tensor]] = {
    "self_attention": self_attention,
    "rollout": rollout,
    "grad_cam": grad_cam,
    "attention_grad_cam": attention_grad_cam,
    "game": game,
    "all_gradients": all_gradients,
    "last_gradient": last_gradient,
    "maskclip": maskclip,
    "itsm": itsm,
    "reversed_itsm": reversed_itsm,
    "iclip": iclip,
    "legrad": legrad,
    "grad_eclip": grad_eclip,
    "clip_surgery": clip_surgery,
    "gem": gem,
    "m2ib": m2ib,
    "rise": rise,
    "occlusion": occlusion,
}

WORD_EXPLAINERS: dict[str, Callable[..., Tensor]] = {
    "self_attention": self_attention_words,
    "rollout": rollout_words,
    "game": game_words,
    "grad_eclip": grad_eclip_words,
    "m2ib": m2ib_words,
    "occlusion": occlusion_words,
}

PER = ("token", "word")

# Those of EXPLAINERS that take a ResNet as well as a ViT.
FOR_RESNETS: frozenset[str] = frozenset(
    {"self_attention", "grad_cam", "maskclip", "itsm", "reversed_itsm", "rise", "occlusion"}
)

# Those that explain a classifier's logit; the others compare patches with a direction by the cosine.
FOR_CLASSIFIERS: frozenset[str] = frozenset(
    ("self_attention", "rollout", "grad_cam", "attention_grad_cam", "game", "all_gradients", "last_gradient")
    + ("legrad", "grad_eclip", "rise", "occlusion")
)


def explain(
    model: Model,
    images: Images,
    targets: Targets,
    method: str = "grad_eclip",
    fit: str = "crop",
    templates: Templates = BARE,
    truncate: bool = False,
    **options,
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Raw maps of every image for every target, float32, on the method's own grid.

    `images`: a PIL image, a path, a list of either, or preprocessed pixels (images, 3, height, width). `targets`: a
    text, a list of texts, another image or several (PIL, or `pathlib.Path`: a str is a text), or directions (targets,
    embedding), as those of `difference` and `without_word`; a minus before a direction gives what speaks against
    it; for a classifier, classes by name or index. `fit`: "crop", "full" or "squash", as in `preprocess`. `templates`:
    texts are put into the {} of each, and the mean of all is explained: "imagenet", "clip_surgery", or one's own.
    `truncate` allows texts that are too long. `options` are the method's own. Raises MethodError, ImageError,
    TextError or TensorError.
    """
    explainer = _find(method, EXPLAINERS, options)
    _check_fits(model, method)
    request = make_request(model, images, targets, fit, templates, truncate)
    with out_of_memory(len(request.pixels), "{} images at once"):
        return explainer(request, **options)


def explain_words(
    model: Model,
    images: Images,
    texts: str | Sequence[str],
    method: str = "grad_eclip",
    fit: str = "crop",
    per: str = "token",
    truncate: bool = False,
    **options,
) -> list[tuple[list[str], Float[Tensor, "images tokens"]]]:
    """For each text its tokens, and their raw weights for every image, float32, start and end token left out.

    `per="word"`: its words, each with the sum of its tokens' weights; a punctuation mark is a word of its own. Other
    arguments and errors as in `explain`; `images` may also be embeddings (images, embedding).
    """
    if per not in PER:
        raise MethodError(f"got per={per!r}, expected one of {', '.join(map(repr, PER))}")
    explainer = _find(method, WORD_EXPLAINERS, options)
    request = make_word_request(model, images, texts, fit, truncate)
    with out_of_memory(len(request.tokens), "{} texts at once"):
        weights = explainer(request, **options)
    owners, members = words_of(request) if per == "word" else tokens_of(request)
    found, decode = [], vocabulary_of(model).decode
    for index, tokens in enumerate(request.tokens):
        groups = members[owners == index]
        shown = [decode(tokens[group].tolist()).strip() for group in groups]
        found.append((shown, weights[index] @ groups[:, : weights.shape[-1]].T.to(weights)))
    return found


def options_of(explainer: Callable[..., Tensor]) -> dict[str, object]:
    """An explainer's own options and their defaults."""
    parameters = inspect.signature(explainer).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def _check_fits(model: Model, method: str) -> None:
    fitting = set(EXPLAINERS) & (set(EXPLAINERS) if model.is_vit else FOR_RESNETS)
    fitting &= set(EXPLAINERS) if model.head is None else FOR_CLASSIFIERS
    if method in fitting:
        return
    listed = ", ".join(sorted(fitting))
    if not model.is_vit and method not in FOR_RESNETS:
        raise MethodError(f"{method} needs a vision transformer and {model.name} is a ResNet, for which fit: {listed}")
    raise MethodError(
        f"{method} does not explain a class logit and {model.name} is a classifier, for which fit: {listed}"
    )


def _find(method: str, registry: dict[str, Callable[..., Tensor]], options: dict) -> Callable[..., Tensor]:
    if method not in registry:
        raise MethodError(f"unknown method {method!r}: {nearest(method, registry)}")
    known = options_of(registry[method])
    for option in options:
        if option not in known:
            raise MethodError(f"{method} has no option {option!r}: {nearest(option, known)}")
    return registry[method]
