"""What is to be explained: pixels and directions (`Request`), or words and images (`WordRequest`).

Above models/vit.py, whose traces a request caches, so that several explainers share one forward; below the explainers.
Targets are plain tensors of unit vectors, so negation is `-targets(model, "a dog")`: the map of what speaks against.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.checks import checked, out_of_memory, told
from clip_explain.directions import Targets, directions, targets
from clip_explain.errors import ModelError, TextError
from clip_explain.images import Images, preprocessed
from clip_explain.models.adapted import image_tower, text_tower
from clip_explain.models.agreement import check_agreement
from clip_explain.models.embed import tokenize
from clip_explain.models.model import Model, checked_embedding, compared
from clip_explain.models.resnet import trace_resnet
from clip_explain.models.tokenizer import Texts, character_ends
from clip_explain.models.trace import Trace, TraceOptions, find_trace
from clip_explain.models.vit import own_tokens, seen_tokens, trace_image, trace_text
from clip_explain.texts import BARE, Templates, spoken_words

BYTES_AT_ONCE = 2**30  # that traces with a graph take


@dataclass(frozen=True, eq=False)
class Request:
    """Why are these images close to these directions? Every image is explained for every target.

    `pixels` are preprocessed; `targets` have unit length. Build one by `make_request`, which checks both.
    """

    model: Model
    pixels: Float[Tensor, "images 3 height width"]
    targets: Float[Tensor, "targets embedding"]
    _traces: dict = field(default_factory=dict, init=False, repr=False)
    _kept: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        check_agreement(self.model.network, self.model.name)

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The result of `compute`, kept with this request under a key, so that two methods can share it."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    @property
    def depth(self) -> int | None:
        """The number of layers of the image tower; None for a convolutional network."""
        return len(image_tower(self.model.network).layers) if self.model.is_vit else None

    def trace(self, **options) -> Trace:
        """The trace of the images with these `TraceOptions`. It is kept, and taken from a kept one that contains it.

        A ResNet has attention only in its last pooling, and takes only the options of `trace_resnet`.
        """
        asked, model = TraceOptions(**options), self.model
        if asked in self._traces:
            return self._traces[asked]
        forget_if_changed(self)
        if not model.is_vit:
            trace = trace_resnet(model.network, self.pixels, similarity=model.similarity, **options)
            self._traces[asked] = checked_trace(trace)
            return trace
        asked.check(len(image_tower(model.network).layers))
        return find_trace(self._traces, asked, self._make)

    def _make(self, asked: TraceOptions, begun: Trace | None) -> Trace:
        model = self.model
        trace = trace_image(model.network, self.pixels, similarity=model.similarity, begun=begun, **vars(asked))
        return checked_trace(trace)


@dataclass(frozen=True, eq=False)
class WordRequest:
    """Which words bring these texts close to these images? Every text is explained for every image.

    `tokens` come from `tokenize`; `targets` are the images' unit embeddings. Build one by `make_word_request`.
    """

    model: Model
    tokens: Int[Tensor, "texts context"]
    targets: Float[Tensor, "images embedding"]
    _traces: dict = field(default_factory=dict, init=False, repr=False)
    _kept: dict = field(default_factory=dict, init=False, repr=False)

    @property
    def depth(self) -> int:
        """The number of layers of the text tower."""
        return len(text_tower(self.model.network).layers)

    def trace(self, **options) -> Trace:
        """The trace of the texts with these `TraceOptions`. It is kept, and taken from a kept one that contains it."""
        asked = TraceOptions(**options)
        if asked in self._traces:
            return self._traces[asked]
        forget_if_changed(self)
        asked.check(self.depth)
        return find_trace(self._traces, asked, self._make)

    def _make(self, asked: TraceOptions, begun: Trace | None) -> Trace:
        return checked_trace(trace_text(self.model.network, self.tokens, begun=begun, **vars(asked)))


@dataclass(frozen=True, eq=False)
class SpokenRequest:
    """As a `WordRequest`, of a model whose text tower is not read: `texts` as they are written, cut if `truncate`."""

    model: Model
    texts: tuple[str, ...]
    targets: Float[Tensor, "images embedding"]
    truncate: bool = False


def forget_if_changed(request: Request | WordRequest) -> None:
    """Check the model, and drop all that is kept if its network has changed since."""
    mark = check_agreement(request.model.network, request.model.name)
    if request._kept.setdefault("network", mark) is not mark:
        request._traces.clear()
        request._kept.clear()
        request._kept["network"] = mark


def checked_trace(trace: Trace) -> Trace:
    """The trace, if its embedding is finite; ModelError if not."""
    checked_embedding(trace.embedding)
    return trace


@checked()
def make_request(
    model: Model,
    images: Images,
    spec: Targets,
    fit: str | None = None,
    templates: Templates = BARE,
    truncate: bool = False,
) -> Request:
    """A request from images, as `pixels` takes them, or the `Pixels` that it makes, and `targets(model, spec)`."""
    return Request(model, preprocessed(model, images, fit), targets(model, spec, templates, fit, truncate))


@checked()
def make_word_request(
    model: Model, images: Images, texts: Texts, fit: str | None = None, truncate: bool = False
) -> WordRequest:
    """A word request from texts and images, or the images' embeddings as a float tensor (images, embedding)."""
    return WordRequest(model, tokenize(model, texts, truncate), image_directions(model, images, fit))


@checked()
def make_spoken_request(
    model: Model, images: Images, texts: Texts, fit: str | None = None, truncate: bool = False
) -> SpokenRequest:
    """As `make_word_request`, of a model whose text tower is not read. TextError for no text, or one without a word."""
    said = (texts,) if isinstance(texts, str) else tuple(texts)
    if not said or not all(spoken_words(text) for text in said):
        raise TextError(f"got texts {told(list(said))}, expected at least one, and each with a word")
    return SpokenRequest(model, said, image_directions(model, images, fit), truncate)


def image_directions(model: Model, images: Images, fit: str | None = None) -> Float[Tensor, "images embedding"]:
    """Unit directions of images, or of their embeddings, a float tensor (images, embedding)."""
    given = isinstance(images, Tensor) and images.ndim == 2
    return directions(model, images if given else model.embed_images(preprocessed(model, images, fit)))


def share_forward(request: Request) -> None:
    """Make one trace that serves all methods except the slow ones, before several methods explain one request.

    It costs little more than a forward and takes the memory of a graph through all layers. A ResNet does not need it.
    """
    if request.model.is_vit:
        layers = len(image_tower(request.model.network).layers)
        request.trace(layers=layers, start="attention", tokens="all")


def in_parts(request: Request, **options) -> Iterator[Request]:
    """The request, split into requests of fewer images where a trace with a graph would take too much memory.

    Each part takes at most about BYTES_AT_ONCE bytes, and has at least one image. Nothing is split if a kept trace
    already serves these options.
    """
    asked = TraceOptions(**options)
    if not request.model.is_vit or any(kept.serves(asked) for kept in request._traces):
        yield request
        return
    count = max(1, BYTES_AT_ONCE // max(1, graph_bytes(request, asked.layers)))  # no layers: the trace refuses them
    for pixels in request.pixels.split(count):
        yield request if len(pixels) == len(request.pixels) else replace(request, pixels=pixels)


def graph_bytes(request: Request, layers: int) -> int:
    """An estimate of the bytes that one image's graph through the last layers takes (ViT-B/16, 12 layers: 220 MB)."""
    tower, (_, _, height, width) = image_tower(request.model.network), request.pixels.shape
    stem: Any = tower.stem  # `Patches`
    channels, (patch_h, patch_w) = stem.positions.shape[-1], stem.patch
    tokens = (height // patch_h) * (width // patch_w) + 1
    numbers = layers * tokens * (24 * channels + 3 * tower.layers[0].heads * tokens)
    return numbers * max(4, request.pixels.element_size())  # sums between layers are in float32 at least


def tokens_of(request: WordRequest) -> tuple[Int[Tensor, " tokens"], Bool[Tensor, "tokens context"]]:
    """Every token of every text between start and end: the text's index, and the token's place.

    Tokens that hold parts of the same character, as those of Chinese do, count as one.
    """
    return _groups(request, partial(character_ends, request.model.vocabulary))


def words_of(request: WordRequest) -> tuple[Int[Tensor, " words"], Bool[Tensor, "words context"]]:
    """Every word of every text: the text's index, and which of its tokens belong to the word."""
    return _groups(request, request.model.vocabulary.ends_word)


def _groups(
    request: WordRequest, ends: Callable[[Sequence[int]], list[bool]]
) -> tuple[Int[Tensor, " groups"], Bool[Tensor, "groups context"]]:
    """The texts' own tokens in groups, each closed by a token that `ends` it: the text's index, and its tokens."""
    owned = own_tokens(text_tower(request.model.network), request.tokens)
    owners, rows = [], []
    for index, (numbers, own) in enumerate(zip(request.tokens, owned, strict=True)):
        places, group = own.nonzero()[:, 0].tolist(), []
        for place, last in zip(places, ends(numbers[own].tolist()), strict=True):
            group.append(place)
            if last or place == places[-1]:
                owners.append(index)
                rows.append([position in group for position in range(len(numbers))])
                group = []
    device = request.tokens.device
    return torch.tensor(owners, device=device), torch.tensor(rows, device=device)


def longest(request: WordRequest) -> int:
    """The number of tokens in a trace of the texts, see `seen_tokens`."""
    return seen_tokens(text_tower(request.model.network), request.tokens)


def scores(request: Request | WordRequest | SpokenRequest, **options) -> Tensor:
    """The score of every image (for a request of words, every text) and target, see `Model.score`.

    It is read from the kept trace with these options; a ResNet, which has no trace, runs a forward.
    """
    model = request.model
    if isinstance(request, SpokenRequest):
        return model.score(model.embed_texts(list(request.texts), request.truncate), request.targets)
    if isinstance(request, Request) and not model.is_vit:
        return model.score(model.embed_images(request.pixels), request.targets)
    embedding = compared(request.trace(**options).embedding.detach(), model.similarity)
    return model.score(embedding, request.targets)


@checked()
def class_logits(model: Model, images: Images, fit: str | None = None) -> Float[Tensor, "images classes"]:
    """A classifier's logits of all classes, from the trace. ModelError for a model without a head."""
    if model.head is None:
        raise ModelError(f"{model.name} is not a classifier: it has no class logits")
    features = model.embed_images(preprocessed(model, images, fit)).detach()
    return features @ model.head.weight.T.to(features) + model.head.bias.to(features)


def masked_scores(request: Request, batches: Iterable[Tensor], batch_size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each batch of masks and each image: the image's index, the masks on its device, cosines (masks, targets)."""
    with torch.no_grad(), out_of_memory(batch_size):
        for masks in batches:
            masks = masks.to(request.pixels.device)
            for index, pixels in enumerate(request.pixels):
                embedded = request.model.embed_images(pixels * masks[:, None].to(pixels))
                yield index, masks, embedded @ request.targets.T.to(embedded)
