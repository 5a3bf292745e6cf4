"""CLIP's loss where captions can be true of several pictures, and a step by it. Below loop.py and graphs.py."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def contrastive_loss(logits: Float[Tensor, "images texts"], truth: Int[Tensor, "images texts"]) -> Float[Tensor, ""]:
    """CLIP's symmetric loss where an image may have several true captions, and a caption several images.

    `truth`: 1 true, 0 false, -1 left out. Each true pair is told from all false ones of its row (and of its column):
    -log(e^p / (e^p + sum of e^n)). With one true pair a row it is CLIP's own loss.
    """
    return (_one_side(logits, truth) + _one_side(logits.T, truth.T)) / 2


def _one_side(logits: Tensor, truth: Tensor) -> Tensor:
    false = logits.masked_fill(truth != 0, -1e4).logsumexp(1, keepdim=True)
    true = (truth == 1).float()
    each = (F.softplus(false - logits) * true).sum(1) / true.sum(1).clamp(min=1)
    return each.sum() / (true.sum(1) > 0).sum().clamp(min=1)


def share_of_best(logits: Float[Tensor, "images texts"], truth: Int[Tensor, "images texts"]) -> Float[Tensor, ""]:
    """The share of images whose best caption, of those that can be told, is true."""
    best = logits.masked_fill(truth < 0, -1e4).argmax(1, keepdim=True)
    return (truth.gather(1, best) == 1).float().mean()


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """One step of the optimizer down the loss, gradients cut to a length of 1; they are cleared at the end."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def learn(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Float[Tensor, "images embedding"],
    texts: Float[Tensor, "texts embedding"],
    truth: Int[Tensor, "images texts"],
) -> Float[Tensor, "3"]:
    """One step of the optimizer by a batch's embeddings; returns the loss, the share of best captions, and the scale.

    Nothing here waits for a GPU, so that a step can be recorded.
    """
    scale = network.logit_scale.exp()
    logits = scale * F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    loss = contrastive_loss(logits, truth)
    descend(network, optimizer, loss)
    network.logit_scale.data.clamp_(0, math.log(100))
    return torch.stack([loss.detach(), share_of_best(logits, truth), scale.detach()])
