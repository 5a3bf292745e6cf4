"""Trains the embedded models on the embedded world: `clip-explain train tiny-vit`.

CLIP's symmetric contrastive loss and nothing else: no masks and no labels of patches; DINO's loss, which needs no
captions either; ICLIP's. Resumable, on a CPU or a GPU.
"""

from clip_explain.embedded.training.loop import finetune, train
from clip_explain.embedded.training.plans import (
    DINO_PLANS,
    ICLIP_PLANS,
    PLANS,
    DinoPlan,
    DinoStage,
    IclipPlan,
    Plan,
    Stage,
)

__all__ = [
    "DINO_PLANS",
    "ICLIP_PLANS",
    "PLANS",
    "DinoPlan",
    "DinoStage",
    "IclipPlan",
    "Plan",
    "Stage",
    "finetune",
    "train",
]
