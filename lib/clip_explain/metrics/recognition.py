"""Metrics of a model's recognition: multi-label average precision, zero-shot top-k, and retrieval recall at k.

Pure functions on scores that are already computed. One number for each class, image or text; a question without an
answer is NaN, to be left out of means. Of equal scores the wrong ones count as higher, so equal scores win nothing.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError, TensorError


@checked()
def class_average_precision(
    scores: Float[Tensor, "images classes"], present: Bool[Tensor, "images classes"]
) -> Float[Tensor, " classes"]:
    """Each class's average precision over the images, by scikit-learn, 0 to 1: their mean is ICLIP's mAP (2.2).

    NaN for a class that is in no image; 1 for one that is in all; equal scores are one point of the curve. Scores may
    be on any scale, as only their order within a class counts. TensorError for other shapes, or NaN.
    """
    _checked(scores)
    if scores.shape != present.shape:
        raise TensorError(
            f"got scores {tuple(scores.shape)} and labels {tuple(present.shape)}, expected the same shape"
        )
    columns = zip(scores.T.cpu().double().numpy(), present.T.cpu().numpy(), strict=True)
    found = [average_precision_score(truth, score) if truth.any() else np.nan for score, truth in columns]
    return torch.tensor(found, dtype=torch.float32, device=scores.device)


@checked()
def mean_average_precision(scores: Float[Tensor, "images classes"], present: Bool[Tensor, "images classes"]) -> float:
    """mAP of multi-label recognition (ICLIP 2.2, Tab. 1): the mean over the classes that are in some image, 0 to 1."""
    values = class_average_precision(scores, present)
    if values.isnan().all():
        raise TensorError(f"none of the {len(values)} classes is in any of the {len(scores)} images")
    return float(values.nanmean())


@checked()
def rank_of(
    scores: Float[Tensor, "items candidates"], right: Bool[Tensor, "items candidates"]
) -> Int[Tensor, " items"]:
    """How many wrong candidates score at least as high as the best right one: 0 is first. -1 where none is right."""
    _checked(scores)
    if scores.shape != right.shape:
        raise TensorError(f"got scores {tuple(scores.shape)} and {tuple(right.shape)} marks, expected the same shape")
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(right.any(dim=1), ((scores >= best) & ~right).sum(dim=1), -1)


@checked()
def top_k(
    scores: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], k: int = 1
) -> Float[Tensor, " images"]:
    """Zero-shot accuracy: 1 for each image whose own class is among its k best, else 0. With k classes all are 1.

    `scores`: cosines of images and class texts. TensorError for a label outside the classes.
    """
    classes = scores.shape[1]
    if labels.shape != scores.shape[:1] or ((labels < 0) | (labels >= classes)).any():
        raise TensorError(
            f"got labels {labels.tolist()[:10]} for scores {tuple(scores.shape)}, expected one from 0 to {classes - 1}"
            " an image"
        )
    right = labels[:, None].to(scores.device) == torch.arange(classes, device=scores.device)
    return _within(rank_of(scores, right), k)


@checked()
def recall_at_k(
    similarity: Float[Tensor, "images texts"], image_of: Int[Tensor, " texts"], k: int = 1
) -> tuple[Float[Tensor, " images"], Float[Tensor, " texts"]]:
    """Retrieval recall@k both ways: for each image, and for each text, 1 if what it belongs to is among the k best.

    `image_of[t]` is the image that text t captions. Text retrieval (Grad-ECLIP's TR, Tab. 2 and 5): an image is right
    if any of its captions is among its k best texts; NaN for an image without one. Image retrieval (IR): a text is
    right if its image is among its k best images. TensorError for a caption of no image.
    """
    images = similarity.shape[0]
    if image_of.shape != similarity.shape[1:] or ((image_of < 0) | (image_of >= images)).any():
        raise TensorError(
            f"got image_of {image_of.tolist()[:10]} for similarities {tuple(similarity.shape)}, expected one image from"
            f" 0 to {images - 1} a text"
        )
    pairs = torch.arange(images, device=similarity.device)[:, None] == image_of.to(similarity.device)
    return _within(rank_of(similarity, pairs), k), _within(rank_of(similarity.T, pairs.T), k)


def _within(ranks: Int[Tensor, " items"], k: int) -> Float[Tensor, " items"]:
    if k < 1:
        raise MethodError(f"got k={k}, expected at least 1")
    return torch.where(ranks < 0, torch.nan, (ranks < k).float())


def _checked(scores: Tensor) -> None:
    if not scores.numel() or not torch.isfinite(scores).all():
        raise TensorError(f"got scores of shape {tuple(scores.shape)}, expected at least one, and all of them finite")
