"""`python -m clip_explain.training tiny-vit`: train an embedded model, or go on with its training.

Also `tiny-dino`, and `iclip` with its ablations, here or on one's own captioned images.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from clip_explain.datasets import DATASETS
from clip_explain.explainers.masked import POOLINGS
from clip_explain.training.dino import train_dino
from clip_explain.training.iclip import train_iclip
from clip_explain.training.loop import train
from clip_explain.training.plans import DINO_PLANS, ICLIP_PLANS, PLANS, IclipPlan


def main() -> None:
    args = parser().parse_args()
    folder = args.folder or Path("runs") / ("iclip" if args.model in ICLIP_PLANS else "") / args.model
    folder.mkdir(parents=True, exist_ok=True)
    plan = (PLANS | DINO_PLANS | ICLIP_PLANS)[args.model]
    if isinstance(plan, IclipPlan):
        plan = with_changes(plan, args)
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=1))
    if isinstance(plan, IclipPlan):
        train_iclip(plan, folder, args.cache or folder.parent, args.device, args.until, args.root)
    else:
        (train_dino if args.model in DINO_PLANS else train)(plan, folder, args.device, args.until)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description="Train an embedded model, or go on with its training.")
    found.add_argument("model", choices=[*PLANS, *DINO_PLANS, *ICLIP_PLANS])
    found.add_argument("--folder", type=Path, default=None, help="checkpoints and pools; default runs/MODEL")
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--until", type=int, default=None, help="stop after so many steps in all")
    own = found.add_argument_group("for iclip", "what is given replaces the plan's; use another --folder then")
    own.add_argument("--cache", type=Path, default=None, help="pool and views, shared by ablations; default: above")
    own.add_argument("--encoder", default=None, help="tiny-dino, tiny-vit, facebook/dino-vitb16, ...")
    own.add_argument("--pooling", choices=POOLINGS, default=None)
    own.add_argument("--projections", type=int, choices=(1, 2), default=None)
    own.add_argument("--dataset", choices=list(DATASETS), default=None, help="such as conceptual_captions")
    own.add_argument("--table", default=None, help="its tsv, such as Train_GCC-training.tsv")
    own.add_argument("--root", type=Path, default=None, help="the folder of all datasets")
    for name in ("steps", "batch", "views"):
        own.add_argument(f"--{name}", type=int, default=None)
    own.add_argument("--rate", type=float, default=None, help="the learning rate")
    return found


def with_changes(plan: IclipPlan, args: argparse.Namespace) -> IclipPlan:
    """The plan with what the command line says instead."""
    names = ("encoder", "pooling", "dataset", "table", "steps", "batch", "views", "rate")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(plan, **given, dual=plan.dual if args.projections is None else args.projections == 2)


if __name__ == "__main__":
    main()
