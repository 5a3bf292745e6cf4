"""Trains ICLIP ("IC", 3.2-4.1) and its ablations: `clip-explain train iclip`.

The image encoder is frozen and its features of all views are computed beforehand (views.py); a text tower and the
projections are trained. Above models/iclip.py, which has the network, and loop.py.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from safetensors.torch import save
from torch import Tensor, nn

from clip_explain.embedded.training.loop import (
    make_optimizer,
    note_plan,
    resume,
    run_steps,
    schedule,
    set_rate,
)
from clip_explain.embedded.training.losses import contrastive_loss, descend
from clip_explain.embedded.training.plans import IclipPlan
from clip_explain.embedded.training.towers import embed_texts
from clip_explain.embedded.training.views import Views, make_views
from clip_explain.models.iclip import load_encoder, new_text, poolings_of, project
from clip_explain.models.model import Model
from clip_explain.models.pooling import POOLINGS
from clip_explain.models.weights import VOCABULARY, clip, pack

Batch = tuple[Tensor, Tensor, Tensor]  # pooled features, tokens, truth


def train_iclip(
    plan: IclipPlan,
    folder: Path,
    cache: Path | None = None,
    device: str = "cpu",
    until: int | None = None,
    root: Path | None = None,
) -> nn.Module:
    """Run a plan from the checkpoint in `folder`, if any, to its end or to `until` steps; returns what was trained.

    `cache` keeps pool and views, which ablations share (default: `folder`); `root`: of a plan's `dataset`.
    """
    note_plan(plan, folder)
    encoder = load_encoder(plan.encoder, device, torch.float16 if device.startswith("cuda") else torch.float32)
    views = make_views(plan, cache or folder, encoder, root)
    text = build(plan, views.pooled.shape[-1]).to(device)
    optimizer = make_optimizer(text, plan)
    start = resume(text, optimizer, folder / "checkpoint.pt")
    end = min(until or plan.steps, plan.steps)

    def take(step: int, batch: Batch) -> dict[str, float]:
        set_rate(optimizer, plan.rate * schedule(step, plan.steps, plan.warmup))
        return take_step(text, optimizer, *(part.to(device) for part in batch))

    batches = draw_batches(plan, views, start, end)
    run_steps(text, optimizer, batches, take, folder, range(start, end), plan.steps)
    return text


def build(plan: IclipPlan, channels: int, vocabulary: int = VOCABULARY) -> nn.Module:
    """Text tower and projections with random weights from the plan's seed."""
    branches = len(poolings_of(plan.pooling, plan.dual))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return new_text(plan.text_width, plan.text_layers, plan.embed, branches, channels, vocabulary)


def draw_batches(plan: IclipPlan, views: Views, start: int, end: int) -> Iterator[Batch]:
    """The batches of some steps; each depends only on the plan's seed and the step."""
    rows = [POOLINGS.index(how) for how in poolings_of(plan.pooling, plan.dual)]
    whole = np.flatnonzero(np.isfinite(views.pooled[:, 0, 0]))
    for step in range(start, end):
        rng = np.random.default_rng([plan.seed, 2, step])
        picked = rng.choice(whole, plan.batch, replace=len(whole) < plan.batch)
        said, truth = views.say(picked, rng)
        pooled = torch.from_numpy(views.pooled[picked][:, rows].astype(np.float32))
        yield pooled, clip.tokenize(said, truncate=True), truth


def dual_loss(
    images: Float[Tensor, "images branches embedding"],
    texts: Float[Tensor, "texts branches embedding"],
    truth: Int8[Tensor, "images texts"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """IC eq. 13: CLIP's contrastive loss of each branch's image and text embeddings, the mean over branches.

    Embeddings need not have unit length. The paper does not say whether the branches share a temperature: here they do.
    """
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    logits = scale * torch.einsum("ibe,tbe->bit", images, texts)
    return torch.stack([contrastive_loss(each, truth) for each in logits]).mean()


def take_step(
    text: nn.Module,
    optimizer: torch.optim.Optimizer,
    pooled: Float[Tensor, "images branches channels"],
    tokens: Int[Tensor, "texts context"],
    truth: Int8[Tensor, "images texts"],
) -> dict[str, float]:
    """One step of AdamW; returns the loss."""
    with torch.autocast(pooled.device.type, torch.bfloat16):
        texts = embed_texts(text, tokens).unflatten(-1, (pooled.shape[1], -1))
    scale = text.logit_scale.exp()
    loss = dual_loss(project(pooled, text.image_projection), texts.float(), truth, scale)
    descend(text, optimizer, loss)
    text.logit_scale.data.clamp_(0, math.log(100))
    return {"loss": round(loss.item(), 6), "scale": round(scale.item(), 1)}


def packed(plan: IclipPlan, text: nn.Module, encoder: Model) -> bytes:
    """A trained ICLIP as the content of a .safetensors file, fp16, with the encoder and poolings it needs."""
    start = build(plan, text.image_projection.shape[1]).token_embedding.weight
    rows = (text.token_embedding.weight.detach().cpu() != start).any(1).nonzero()[:, 0]
    poolings = poolings_of(plan.pooling, plan.dual)
    made = {"encoder": plan.encoder, "encoder_sha256": encoder.sha256, "poolings": poolings}
    return save(pack(text.state_dict(), rows), {"format": "pt", "iclip": json.dumps(made)})
