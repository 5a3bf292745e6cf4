"""Trains the embedded models on the embedded world: `clip-explain train tiny-vit`.

The losses are CLIP's symmetric contrastive loss, without masks or labels of patches; DINO's, which needs no captions;
and ICLIP's. Trainings can be resumed, on a CPU or a GPU.
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
