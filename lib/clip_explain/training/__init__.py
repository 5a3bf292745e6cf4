"""Trains the embedded models on the embedded world: `python -m clip_explain.training tiny-vit`.

CLIP's symmetric contrastive loss and nothing else: no masks and no labels of patches. Resumable, on a CPU or a GPU.
"""

from clip_explain.training.loop import finetune, train
from clip_explain.training.plans import PLANS, Plan, Stage

__all__ = ["PLANS", "Plan", "Stage", "finetune", "train"]
