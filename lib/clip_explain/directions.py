"""What is explained, as directions in the embedding space: of texts, images, classes, differences."""

import os
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clip_explain.checks import checked, finite, told
from clip_explain.errors import TensorError, TextError
from clip_explain.images import Readable, preprocessed
from clip_explain.models.adapted import text_tower
from clip_explain.models.embed import tokenize
from clip_explain.models.head import class_rows
from clip_explain.models.model import Model, compared, unit
from clip_explain.models.outside import warn_outside
from clip_explain.models.tokenizer import Texts
from clip_explain.models.vit import own_tokens
from clip_explain.texts import BARE, Templates, _occurrences, drop_tokens, template_list, without_said

ImageTarget = os.PathLike | Image.Image | np.ndarray | Readable
Targets = Annotated[
    str | int | ImageTarget | Sequence[str | int | ImageTarget] | Tensor,
    TextError,
    "texts, or images (PIL, pathlib.Path, an array, an open file), or directions (targets, embedding)",
]


@checked()
def targets(
    model: Model, spec: Targets, templates: Templates = BARE, fit: str | None = None, truncate: bool = False
) -> Float[Tensor, "targets embedding"]:
    """Unit vectors to explain: of texts, of other images, or a float tensor (targets, embedding) scaled to length 1.

    `spec`: one or several texts (a str is always a text); or one or several images, PIL, a `pathlib.Path`, an array or
    an open file, read and fitted as `pixels` does, or the `Pixels` that it makes. With several `templates` ("a photo
    of a {}.", or "imagenet", "clip_surgery": a set of TEMPLATE_SETS) a text's target is the mean of its unit embeddings
    in all of them, scaled to length 1 again: CLIP's prompt ensemble. Templates and `truncate` concern only texts. For a
    classifier: classes by name or index; their directions are the rows of the head's weights, unscaled. Raises
    TextError, ImageError or TensorError.
    """
    prompts = template_list(templates)
    if model.head is not None and not isinstance(spec, Tensor):
        return directions(model, class_rows(model.head, spec))
    if isinstance(spec, Tensor):
        return model.embed_images(preprocessed(model, spec)) if spec.ndim == 4 else directions(model, spec)
    names = [spec] if isinstance(spec, str | int | ImageTarget) else list(spec)
    if names and all(isinstance(name, ImageTarget) for name in names):
        return torch.cat([model.embed_images(preprocessed(model, name, fit)) for name in names])
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise TextError(
            f"got targets {told(names)}, expected at least one text, and none of them empty; or images alone, "
            "as PIL images, pathlib.Path, arrays or open files"
        )
    warn_outside(model, texts=names)
    filled = [template.replace("{}", name) for name in names for template in prompts]
    embedded = model.embed_texts(filled, truncate)
    return unit(embedded.unflatten(0, (len(names), -1)).mean(dim=1))


@checked()
def difference(
    model: Model, positive: Targets, negative: Targets, templates: Templates = BARE
) -> Float[Tensor, "targets embedding"]:
    """Unit directions from the `negative` targets to the `positive` ones, as from "a sad face" to "a happy face"."""
    return directions(model, targets(model, positive, templates) - targets(model, negative, templates))


@checked(TextError)
def without_word(model: Model, text: str, words: Texts, truncate: bool = False) -> Float[Tensor, "targets embedding"]:
    """Unit directions enc(t) - enc(t without w), both of unit length first: the contribution of each word w to text t.

    A word may consist of several in a row ("red cube"). It is found among the text's tokens, in any case, and every
    occurrence is dropped. Dropping all words leaves the empty text. TextError for a word that is not in the text. For
    a model whose tokens we cannot read, it is found in the text as it is written.
    """
    if model.text_encoder is not None:
        rest = [without_said(text, word) for word in _listed(words)]
        embedded = model.embed_texts([text, *rest], truncate)
        return directions(model, embedded[:1] - embedded[1:])
    tokens = tokenize(model, text, truncate)
    found = [_occurrences(model, tokens[0], word)[None] for word in _listed(words)]
    rest = [drop_tokens(tokens, dropped, model.vocabulary) for dropped in found]
    embedded = model.embed_tokens(torch.cat([tokens, *rest]))
    return directions(model, embedded[:1] - embedded[1:])


@checked()
def empty_text(model: Model) -> Float[Tensor, "1 embedding"]:
    """The unit embedding of the empty text: a start and an end token, which `tokenize` refuses as a text."""
    if model.text_encoder is not None:
        return model.embed_texts([""])
    tokens = tokenize(model, "a")
    own = own_tokens(text_tower(model.network), tokens)
    return model.embed_tokens(drop_tokens(tokens, own, model.vocabulary))


@checked()
def directions(model: Model, vectors: Tensor) -> Float[Tensor, "targets embedding"]:
    """Vectors, checked and scaled to unit length, float32 (or float64) on the model's device. Raises TensorError.

    For a classifier they keep their length, because the score is not a cosine.
    """
    width = model.embedding_size
    if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors) or not vectors.is_floating_point():
        raise TensorError(
            f"got targets of shape {tuple(vectors.shape)} and {vectors.dtype}, expected floats (targets, {width})"
        )
    finite("targets", vectors)
    if not vectors.any(dim=1).all():
        raise TensorError("got a target that is all zero, which has no direction")
    vectors = vectors.detach().to(model.device)
    return unit(vectors) if model.head is None else compared(vectors, "dot")


def _listed(words: str | Sequence[str]) -> list[str]:
    found = [words] if isinstance(words, str) else list(words)
    if not found:
        raise TextError("got no words to leave out, expected at least one")
    return found
