"""Readouts of faithfulness curves: from the embeddings of perturbed images or texts to one number for each point.

Pure functions of unit embeddings, above recognition.py, below faithfulness.py and word_faithfulness.py. A tie with a
wrong candidate is a miss, so that a model which gives all candidates the same score has accuracy 0.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.checks import check_counts, checked
from clip_explain.errors import TensorError
from clip_explain.metrics.recognition import rank_of

Readout = Callable[[Tensor], Tensor]  # embeddings (images, maps, points, embedding) -> (images, maps, points)


@checked()
def classification(
    texts: Float[Tensor, "classes embedding"],
    labels: Int[Tensor, "images *maps"],
    scale: float = 100.0,
    ks: tuple[int, ...] = (1, 5, 10),
    bias: float | None = None,
) -> dict[str, Readout]:
    """The zero-shot readouts of a label: "top1", "top5", "top10" (GE Tab 1), "score" and "probability".

    `texts` are the unit embeddings of the classes. `labels`, (images,) or (images, maps), are the classes that count:
    the true ones, or the predicted ones. "score" is the cosine; "probability" is the softmax over all classes of
    `scale` times the cosine (RISE), or where a `bias` is given, as a SigLIP has one, the label's own sigmoid.
    TensorError for a label outside the classes.
    """
    labels = labels if labels.ndim == 2 else labels[:, None]
    check_index("labels", labels, len(texts))
    own = F.one_hot(labels.long(), len(texts)).bool()
    found = {f"top{k}": partial(finds, candidates=texts, own=own, k=k) for k in ks}
    found["score"] = partial(cosines, directions=texts[labels])
    found["probability"] = partial(probability, texts=texts, labels=labels, scale=scale, bias=bias)
    return found


@checked()
def retrieval(
    images: Float[Tensor, "candidates embedding"],
    texts: Float[Tensor, "texts embedding"],
    image_of: Int[Tensor, " texts"],
    image_ids: Int[Tensor, " images"],
    text_ids: Int[Tensor, "images maps"],
    ks: tuple[int, ...] = (1, 5, 10),
) -> dict[str, Readout]:
    """The recall readouts "IR@1" ... "TR@10" of perturbed images among given candidates (GE appendix A, Tab 5).

    `images` and `texts` are the unit embeddings of the unperturbed candidates. `image_of` gives each text's image,
    `image_ids` the candidate that each perturbed image replaces, and `text_ids` the text that each map explains.

    Text retrieval (TR): is one of the image's own texts among the first k of all texts? Image retrieval (IR): is the
    perturbed image, in the place of its original, among the first k images for the explained text? The paper leaves
    open whether the other images are perturbed too. Here they are not, so that the numbers of one pair do not depend on
    the other pairs. TensorError for ids that do not fit.
    """
    check_candidates(images, texts, image_of, text_ids)
    check_index("image_ids", image_ids, len(images))
    if not (image_of[text_ids] == image_ids[:, None]).all():
        raise TensorError("got text_ids of texts that belong to other images, expected each image's own texts")
    own_texts = (image_of == image_ids[:, None])[:, None]
    own_images = F.one_hot(image_ids.long(), len(images)).bool()[:, None]
    tr = {f"TR@{k}": partial(finds, candidates=texts, own=own_texts, k=k) for k in ks}
    ir = {f"IR@{k}": partial(is_found, queries=texts[text_ids], rivals=images, left_out=own_images, k=k) for k in ks}
    return ir | tr


@checked()
def finds(
    embeddings: Float[Tensor, "images maps points embedding"],
    candidates: Float[Tensor, "candidates embedding"],
    own: Bool[Tensor, "images #maps candidates"],
    k: int,
) -> Float[Tensor, "images maps points"]:
    """1 where one of an embedding's own candidates is among the k nearest to it, else 0; a tie is a miss."""
    check_counts(k=k)
    if not own.any(dim=-1).all():
        raise TensorError("got an image without any candidate of its own, which cannot be found")
    ranks = []
    for each, mine in zip(embeddings, own[:, :, None], strict=True):  # one image at a time: candidates may be many
        scores = each @ candidates.to(each).T
        ranks.append(
            rank_of(scores.flatten(0, 1), mine.expand(scores.shape).flatten(0, 1)).unflatten(0, each.shape[:2])
        )
    return (torch.stack(ranks).view(embeddings.shape[:3]) < k).float()


@checked()
def is_found(
    embeddings: Float[Tensor, "images maps points embedding"],
    queries: Float[Tensor, "images #maps embedding"],
    rivals: Float[Tensor, "rivals embedding"],
    left_out: Bool[Tensor, "images #maps rivals"],
    k: int,
) -> Float[Tensor, "images maps points"]:
    """1 where an embedding is among the k nearest to its query, in a gallery of itself and the rivals, else 0.

    `left_out` marks the rivals that do not count: the unperturbed original, and other right answers to the query.
    """
    check_counts(k=k)
    scores = cosines(embeddings, queries)
    against = (queries @ rivals.to(queries).T).masked_fill(left_out, -torch.inf)
    better = [(row[:, None] >= score[..., None]).sum(dim=-1) for row, score in zip(against, scores, strict=True)]
    return (torch.stack(better) < k).float()


@checked()
def cosines(
    embeddings: Float[Tensor, "images maps points embedding"], directions: Float[Tensor, "images #maps embedding"]
) -> Float[Tensor, "images maps points"]:
    """The cosine of each embedding with its map's direction, both of unit length, -1 to 1."""
    return (embeddings @ directions.to(embeddings)[..., None])[..., 0]


@checked()
def probability(
    embeddings: Float[Tensor, "images maps points embedding"],
    texts: Float[Tensor, "classes embedding"],
    labels: Int[Tensor, "images #maps"],
    scale: float = 100.0,
    bias: float | None = None,
) -> Float[Tensor, "images maps points"]:
    """The probability of the label, 0 to 1: a softmax over the classes of `scale` times the cosine.

    With a `bias`, which is added, it is a sigmoid, in which the other classes have no part.
    """
    logits = scale * embeddings @ texts.to(embeddings).T
    chances = logits.softmax(dim=-1) if bias is None else (logits + bias).sigmoid()
    return chances.gather(-1, labels.long()[..., None, None].expand(*chances.shape[:-1], 1))[..., 0]


@checked()
def check_candidates(images: Tensor, texts: Tensor, image_of: Tensor, text_ids: Tensor) -> None:
    """TensorError unless every text belongs to one of the images, and the ids are of texts."""
    check_index("image_of", image_of, len(images))
    check_index("text_ids", text_ids, len(texts))


@checked()
def check_index(name: str, index: Tensor, count: int) -> None:
    """TensorError unless all are whole numbers from 0 to count - 1."""
    if index.is_floating_point() or not index.numel() or index.min() < 0 or index.max() >= count:
        raise TensorError(f"got {name} of {tuple(index.shape)}, {index.dtype}, expected whole numbers 0 to {count - 1}")


@checked()
def change(after: Float[Tensor, "*axes"], before: Float[Tensor, "*#axes"]) -> dict[str, Float[Tensor, "*axes"]]:
    """Confidence "drop" and "increase" from two scores; see `confidence` of faithfulness.py."""
    return {"drop": (before - after).clamp_min(0), "increase": (after > before).float()}
