"""The two calls that look a method up and run it: `explain` for images and `explain_words` for words."""

import inspect
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked, out_of_memory
from clip_explain.directions import Targets
from clip_explain.errors import MethodError
from clip_explain.explainers.registry import check_fits, find_method
from clip_explain.images import Images
from clip_explain.models.model import Model
from clip_explain.models.tokenizer import vocabulary_of
from clip_explain.request import make_request, make_word_request, tokens_of, words_of
from clip_explain.texts import BARE, Templates

PER = ("token", "word")


@checked()
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
    found = find_method(method)
    found.check_options(options)
    check_fits(model, found.name)
    request = make_request(model, images, targets, fit, templates, truncate)
    with out_of_memory(len(request.pixels), "{} images at once"):
        return found.image(request, **options)


@checked()
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
    found = find_method(method, words=True)
    found.check_options(options, words=True)
    check_fits(model, found.name, words=True)
    request = make_word_request(model, images, texts, fit, truncate)
    with out_of_memory(len(request.tokens), "{} texts at once"):
        weights = found.words(request, **options)
    owners, members = words_of(request) if per == "word" else tokens_of(request)
    listed, decode = [], vocabulary_of(model).decode
    for index, tokens in enumerate(request.tokens):
        groups = members[owners == index]
        shown = [decode(tokens[group].tolist()).strip() for group in groups]
        listed.append((shown, weights[index] @ groups[:, : weights.shape[-1]].T.to(weights)))
    return listed


def options_of(explainer: Callable[..., Tensor]) -> dict[str, object]:
    """An explainer's own options and their defaults."""
    parameters = inspect.signature(explainer).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
