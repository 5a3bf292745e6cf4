"""The two calls that look a method up and run it: `explain` for images and `explain_words` for words."""

import inspect
from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clip_explain.checks import checked, one_of, out_of_memory
from clip_explain.directions import Targets
from clip_explain.explainers.explanation import Explanation, WordExplanation, target_names
from clip_explain.explainers.registry import check_fits, find_method
from clip_explain.images import Images, default_fit, read_images
from clip_explain.models.model import Model
from clip_explain.models.outside import unknown_words, warn_outside
from clip_explain.models.tokenizer import Texts, spelled
from clip_explain.request import WordRequest, make_request, make_spoken_request, make_word_request, tokens_of, words_of
from clip_explain.texts import BARE, Templates

PER = ("token", "word")


@checked()
def explain(
    model: Model,
    images: Images,
    targets: Targets,
    method: str = "grad_eclip",
    fit: str | None = None,
    templates: Templates = BARE,
    truncate: bool = False,
    **options,
) -> Explanation:
    """Raw maps of every image for every target, float32, on the method's own grid; see `Explanation`.

    `images`: a PIL image, a path, a list of either, or preprocessed pixels (images, 3, height, width). `targets`: a
    text, a list of texts, another image or several (PIL, or `pathlib.Path`: a str is a text), or directions (targets,
    embedding), such as those of `difference` and `without_word`; a negated direction gives the map of what counts
    against it; for a classifier, classes by name or index. `fit`: "crop", "full" or "squash", as in `preprocess`; by
    default `default_fit(model)`. `templates`: each text replaces the {} of every template, and the mean of their
    embeddings is explained; "imagenet", "clip_surgery", or your own. `truncate` allows texts that are too long.
    `options` are the method's own. Raises MethodError, ImageError, TextError or TensorError.
    """
    found = find_method(method)
    found.check_options(options)
    check_fits(model, found.name)
    given, fit = _pictures(model, images, fit)
    request = make_request(model, images if given is None else given, targets, fit, templates, truncate)
    with out_of_memory(len(request.pixels), "{} images at once"):
        maps = found.image(request, **options)
    # `replace` leaves out the traces that the request keeps, which are large.
    unknown = () if model.head else tuple(unknown_words(model, texts_among(targets)))
    return Explanation(maps, replace(request), target_names(targets), found.name, given and fit, given, unknown)


@checked()
def explain_words(
    model: Model,
    images: Images,
    texts: Texts,
    method: str = "grad_eclip",
    fit: str | None = None,
    per: str = "token",
    truncate: bool = False,
    **options,
) -> WordExplanation:
    """For each text its tokens and their raw weights for every image, float32, without the start and end tokens.

    Tokens that hold parts of one character (CLIP's tokens are made of bytes) are shown, and summed, as one token.
    `per="word"` gives words instead, each with the sum of its tokens' weights; a punctuation mark is a separate word.
    For a model whose text tower we cannot read these are the words as they are written. Other arguments and errors are
    those of `explain`; `images` may also be embeddings (images, embedding).
    """
    one_of("per", per, PER)
    found = find_method(method, words=True)
    found.check_options(options, words=True)
    check_fits(model, found.name, words=True)
    given, fit = _pictures(model, images, fit)
    make = make_word_request if model.tokenizer else make_spoken_request
    request = make(model, images if given is None else given, texts, fit, truncate)
    named, unknown = texts_among(texts), tuple(unknown_words(model, texts_among(texts)))
    with out_of_memory(len(named), "{} texts at once"):
        if isinstance(request, WordRequest):
            listed = _grouped(request, found.words(request, **options), per)
        else:
            listed = found.spoken_words(request, **options)
    warn_outside(model, texts=named)
    return WordExplanation(tuple(listed), replace(request), named, found.name, given and fit, given, unknown)


def _grouped(
    request: WordRequest, weights: Float[Tensor, "texts images tokens"], per: str
) -> list[tuple[list[str], Tensor]]:
    """Each text's tokens or words as they are shown, and their weights."""
    owners, members = words_of(request) if per == "word" else tokens_of(request)
    listed, vocabulary = [], request.model.vocabulary
    for index, tokens in enumerate(request.tokens):
        groups = members[owners == index]
        shown = [spelled(vocabulary, tokens[group].tolist()) for group in groups]
        listed.append((shown, weights[index] @ groups[:, : weights.shape[-1]].T.to(weights)))
    return listed


def _pictures(model: Model, images: Images, fit: str | None) -> tuple[tuple[Image.Image, ...] | None, str]:
    """The images as they were read, None for pixels or embeddings; and the fit.

    Warns of images that an embedded model was not trained for.
    """
    fit = default_fit(model) if fit is None else fit
    if isinstance(images, Tensor):
        return None, fit
    found = tuple(read_images(images))
    warn_outside(model, found)
    return found, fit


def texts_among(spec: Targets) -> tuple[str, ...]:
    """The texts among the targets, without directions and images."""
    each = spec if isinstance(spec, list | tuple) else [spec]
    return tuple(text for text in each if isinstance(text, str))


def options_of(explainer: Callable[..., Tensor]) -> dict[str, object]:
    """An explainer's own options and their defaults."""
    parameters = inspect.signature(explainer).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
