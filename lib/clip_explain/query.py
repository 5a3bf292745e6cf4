"""What is to be explained: pixels and directions in the embedding space (`Query`), or words and images (`WordQuery`).

Above trace.py, whose traces a query caches, so that several explainers share one forward; below the explainers.
Targets are plain tensors of unit vectors, so negation is `-targets(model, "a dog")`: the map of what speaks against.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from clip_explain.errors import TensorError, TextError, nearest
from clip_explain.head import class_rows
from clip_explain.model import Clip, Images, preprocess, tokenize
from clip_explain.resnet import resnet_embedding, resnet_stage
from clip_explain.templates import TEMPLATE_SETS
from clip_explain.trace import Trace, trace_image, trace_text

TEXTS_AT_ONCE = 256
IMAGES_AT_ONCE = 8  # on a CPU, whose caches hold no more: 64 at once cost a tenth (ViT-B/16) to a third (tiny-vit) more

Targets = str | int | Path | Image.Image | Sequence[str | int | Path | Image.Image] | Tensor
Templates = str | Sequence[str]
BARE = ("{}",)  # the text as it stands


@dataclass(frozen=True, eq=False)
class Query:
    """Why are these images close to these directions? Every image is explained for every target.

    `pixels` are preprocessed; `targets` have unit length. Build one by `make_query`, which checks both.
    """

    model: Clip
    pixels: Float[Tensor, "images 3 height width"]
    targets: Float[Tensor, "targets embedding"]
    _traces: dict = field(default_factory=dict, init=False, repr=False)

    def trace(self, **options) -> Trace:
        """The trace of the images, computed once for the same options (those of `trace_image`)."""
        network = self.model.network
        return _cached(
            self._traces, lambda: trace_image(network, self.pixels, score=self.model.score, **options), options
        )


@dataclass(frozen=True, eq=False)
class WordQuery:
    """Which words bring these texts close to these images? Every text is explained for every image.

    `tokens` come from `tokenize`; `targets` are the images' unit embeddings. Build one by `make_word_query`.
    """

    model: Clip
    tokens: Int[Tensor, "texts context"]
    targets: Float[Tensor, "images embedding"]
    _traces: dict = field(default_factory=dict, init=False, repr=False)

    def trace(self, **options) -> Trace:
        """The trace of the texts, computed once for the same options (those of `trace_text`)."""
        return _cached(self._traces, lambda: trace_text(self.model.network, self.tokens, **options), options)


def make_query(
    model: Clip, images: Images, spec: Targets, fit: str = "crop", templates: Templates = BARE, truncate: bool = False
) -> Query:
    """A query from images (a PIL image, a path, a list of either, preprocessed pixels) and `targets(model, spec)`."""
    return Query(model, preprocess(model, images, fit), targets(model, spec, templates, fit, truncate))


def make_word_query(
    model: Clip, images: Images | Tensor, texts: str | Sequence[str], fit: str = "crop", truncate: bool = False
) -> WordQuery:
    """A word query from texts and images, or the images' embeddings as a float tensor (images, embedding)."""
    given = isinstance(images, Tensor) and images.ndim == 2
    embeddings = images if given else embed_images(model, preprocess(model, images, fit))
    return WordQuery(model, tokenize(model, texts, truncate), directions(model, embeddings))


def targets(
    model: Clip, spec: Targets, templates: Templates = BARE, fit: str = "crop", truncate: bool = False
) -> Float[Tensor, "targets embedding"]:
    """Unit vectors to explain: of texts, of other images, or a float tensor (targets, embedding) scaled to length 1.

    `spec`: one or several texts (a str is always a text); or one or several images, PIL or a `pathlib.Path`, read and
    fitted as `preprocess` does, or preprocessed pixels (images, 3, height, width). With several `templates` ("a photo
    of a {}.", or "imagenet", "clip_surgery": a set of TEMPLATE_SETS) a text's target is the mean of its unit embeddings
    in all of them, scaled to length 1 again: CLIP's prompt ensemble. Templates and `truncate` are for texts alone.
    Of a classifier: classes by name or index, whose directions are the head's weights, at their own length. Raises
    TextError, ImageError or TensorError.
    """
    prompts = template_list(templates)
    if model.head is not None and not isinstance(spec, Tensor):
        return directions(model, class_rows(model.head, spec))
    if isinstance(spec, Tensor):
        return embed_images(model, preprocess(model, spec)) if spec.ndim == 4 else directions(model, spec)
    names = [spec] if isinstance(spec, str | Path | Image.Image) else list(spec)
    if names and all(isinstance(name, Path | Image.Image) for name in names):
        return torch.cat([embed_images(model, preprocess(model, name, fit)) for name in names])
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise TextError(
            f"got targets {names!r}, expected at least one text, and none of them empty; or images alone, "
            "as PIL images or pathlib.Path"
        )
    filled = [template.replace("{}", name) for name in names for template in prompts]
    embedded = embed_texts(model, filled, truncate)
    return unit(embedded.unflatten(0, (len(names), -1)).mean(dim=1))


def template_list(templates: Templates) -> list[str]:
    """The templates of a set by name, one template, or several. TextError for an unknown set or one without {}."""
    if isinstance(templates, str) and templates in TEMPLATE_SETS:
        return list(TEMPLATE_SETS[templates])
    found = [templates] if isinstance(templates, str) else list(templates)
    if not found or not all(isinstance(template, str) and "{}" in template for template in found):
        named = nearest(str(templates), TEMPLATE_SETS)
        raise TextError(
            f"got templates {templates!r}, expected one or more with a {{}} for the text, or a set: {named}"
        )
    return found


def difference(
    model: Clip, positive: Targets, negative: Targets, templates: Templates = BARE
) -> Float[Tensor, "targets embedding"]:
    """Unit directions from the `negative` targets to the `positive` ones, as from "a sad face" to "a happy face"."""
    return directions(model, targets(model, positive, templates) - targets(model, negative, templates))


def without_word(
    model: Clip, text: str, words: str | Sequence[str], truncate: bool = False
) -> Float[Tensor, "targets embedding"]:
    """Unit directions enc(t) - enc(t without w), both of unit length first: what each word w adds to the text t.

    A word may be several in a row ("red cube"); it is found in the text's tokens, so whatever its case, and every
    occurrence is dropped. All words dropped leave the empty text. TextError for a word that is not in the text.
    """
    tokens = tokenize(model, text, truncate)
    rest = [drop_tokens(tokens, _occurrences(model, tokens[0], word)[None]) for word in _listed(words)]
    embedded = embed_tokens(model, torch.cat([tokens, *rest]))
    return directions(model, embedded[:1] - embedded[1:])


def empty_text(model: Clip) -> Float[Tensor, "1 embedding"]:
    """The unit embedding of the empty text: a start and an end token, which `tokenize` refuses as a text."""
    if model.embed_texts is not None:
        return unit(model.embed_texts([""], False))
    tokens = tokenize(model, "a")
    return embed_tokens(model, drop_tokens(tokens, (tokens != tokens[0, 0]) & (tokens != tokens.max())))


def drop_tokens(tokens: Int[Tensor, "texts context"], dropped: Bool[Tensor, "texts context"]) -> Tensor:
    """Tokens with the dropped ones left out, the rest moved up to the start and zeros put behind them."""
    order = dropped.to(torch.int8).argsort(dim=-1, stable=True)
    return tokens.masked_fill(dropped, 0).gather(-1, order)


def tokens_of(query: WordQuery) -> tuple[Int[Tensor, " tokens"], Bool[Tensor, "tokens context"]]:
    """Every token of every text between start and end: the text's index, and its place."""
    place = torch.arange(query.tokens.shape[1], device=query.tokens.device)
    inside = (place > 0) & (place < query.tokens.argmax(dim=-1)[:, None])
    owners, places = inside.nonzero(as_tuple=True)
    return owners, places[:, None] == place


def words_of(query: WordQuery) -> tuple[Int[Tensor, " words"], Bool[Tensor, "words context"]]:
    """Every word of every text: the text's index, and which of its tokens the word is."""
    owners, rows = [], []
    for index, tokens in enumerate(query.tokens.tolist()):
        end, first = max(range(len(tokens)), key=tokens.__getitem__), 1
        for place in range(1, end):
            if query.model.tokenizer.decoder[tokens[place]].endswith("</w>") or place == end - 1:
                owners.append(index)
                rows.append([first <= position <= place for position in range(len(tokens))])
                first = place + 1
    device = query.tokens.device
    return torch.tensor(owners, device=device), torch.tensor(rows, device=device)


def directions(model: Clip, vectors: Tensor) -> Float[Tensor, "targets embedding"]:
    """Checked vectors at unit length, float32 (or float64) on the model's device. TensorError for a bad one.

    For a classifier they keep their length: the score is no cosine.
    """
    width = model.embedding_size
    if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors) or not vectors.is_floating_point():
        raise TensorError(
            f"got targets of shape {tuple(vectors.shape)} and {vectors.dtype}, expected floats (targets, {width})"
        )
    if not torch.isfinite(vectors).all():
        raise TensorError("got targets with NaN or infinite values, expected finite ones")
    if not vectors.any(dim=1).all():
        raise TensorError("got a target that is all zero, which has no direction")
    vectors = vectors.detach().to(model.device)
    return unit(vectors) if model.head is None else compared(vectors, "dot")


def unit(vectors: Float[Tensor, "*axes embedding"]) -> Float[Tensor, "*axes embedding"]:
    """Vectors scaled to length 1, in float32 at least; by the largest entry first, so that no length overflows."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    largest = vectors.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    return F.normalize(vectors / largest, dim=-1)


def compared(embedding: Float[Tensor, "*axes embedding"], score: str) -> Float[Tensor, "*axes embedding"]:
    """Embeddings as the score takes them, in float32 at least: for a "cosine" at unit length, for "dot" as they are."""
    return unit(embedding) if score == "cosine" else embedding.to(torch.promote_types(embedding.dtype, torch.float32))


def scores(query: Query | WordQuery, **options) -> Tensor:
    """Score of every image (of a `WordQuery`, every text) and target, from the cached trace of these options.

    The cosine; of a classifier the logit less the class's bias, which explains nothing.
    """
    embedding = compared(query.trace(**options).embedding.detach(), query.model.score)
    return embedding @ query.targets.T.to(embedding)


def _cached(traces: dict, compute, options: dict) -> Trace:
    key = tuple(sorted(options.items()))
    if key not in traces:
        traces[key] = compute()
    return traces[key]


def _listed(words: str | Sequence[str]) -> list[str]:
    found = [words] if isinstance(words, str) else list(words)
    if not found:
        raise TextError("got no words to leave out, expected at least one")
    return found


def _occurrences(model: Clip, row: Int[Tensor, " context"], word: str) -> Bool[Tensor, " context"]:
    """True for the tokens of every occurrence of whole word(s) in a text's tokens."""
    numbers = row[: int(row.argmax()) + 1].tolist()
    wanted = tokenize(model, word)[0]
    wanted = wanted[1 : int(wanted.argmax())].tolist()
    decode, found = model.tokenizer.decoder, torch.zeros_like(row, dtype=torch.bool)
    for start in range(1, len(numbers) - len(wanted)):
        begins = start == 1 or decode[numbers[start - 1]].endswith("</w>")
        if begins and numbers[start : start + len(wanted)] == wanted:
            found[start : start + len(wanted)] = True
    if not found.any():
        text = "".join(decode[number] for number in numbers[1:-1]).replace("</w>", " ").strip()
        raise TextError(f"there is no word {word!r} in the text {text!r}")
    return found


def embed_tokens(model: Clip, tokens: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
    """Unit embeddings, by a trace: it is `encode_text` without the work on padding."""
    return torch.cat([unit(trace_text(model.network, part).embedding) for part in tokens.split(TEXTS_AT_ONCE)])


def embed_texts(model: Clip, texts: list[str], truncate: bool = False) -> Float[Tensor, "texts embedding"]:
    """Unit embeddings of texts, whichever way the model's texts go."""
    if model.embed_texts is not None:
        return unit(model.embed_texts(texts, truncate))
    return embed_tokens(model, tokenize(model, texts, truncate))


def embed_images(model: Clip, pixels: Tensor) -> Float[Tensor, "images embedding"]:
    """Embeddings of preprocessed pixels as the model's score takes them: at unit length, but for a classifier's."""
    parts = pixels.split(IMAGES_AT_ONCE) if pixels.device.type == "cpu" else [pixels]
    return compared(torch.cat([image_features(model, part) for part in parts]), model.score)


def image_features(model: Clip, pixels: Tensor) -> Float[Tensor, "images embedding"]:
    """Embeddings, not normalised, of pixels of any size that the patch, or a ResNet's stride, divides."""
    visual = model.network.visual
    if model.is_vit:
        return trace_image(model.network, pixels).embedding
    with torch.no_grad():
        return resnet_embedding(visual, resnet_stage(visual, pixels))
