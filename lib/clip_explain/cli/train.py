"""`clip-explain train tiny-vit`: train an embedded model, or go on with its training; or several side by side.

Also `tiny-dino`, and `iclip` with its ablations, here or on one's own captioned images.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clip_explain.checks import count, number
from clip_explain.datasets import DATASETS
from clip_explain.embedded.training import blip
from clip_explain.embedded.training.dino import train_dino
from clip_explain.embedded.training.iclip import train_iclip
from clip_explain.embedded.training.loop import train
from clip_explain.embedded.training.plans import DINO_PLANS, ICLIP_PLANS, PLANS, IclipPlan, lengthened
from clip_explain.embedded.training.together import train_together
from clip_explain.errors import MethodError
from clip_explain.files import make_folder
from clip_explain.models import device_of
from clip_explain.models.pooling import POOLINGS

MOST = 10**9  # of steps, images in a batch and the like


def main(argv: Sequence[str]) -> None:
    """Train, or go on from the checkpoint in the folder."""
    args = parser().parse_args(argv)
    check_numbers(args)
    device_of(args.device)
    if len(args.models) == 1:
        train_one(args.models[0], args)
    else:
        train_several(args)


def train_one(name: str, args: argparse.Namespace) -> None:
    """Train the one model that was asked for."""
    folder = make_folder(args.folder or default_folder(name))
    if name in ICLIP_PLANS:
        plan = with_changes(ICLIP_PLANS[name], args)
        train_iclip(plan, folder, args.cache or folder.parent, args.device, args.until, args.root)
    elif name == blip.NAME:
        train(blip.PLAN, folder, args.device, args.until, args.workers, blip.build_blip, blip.embed_batch)
    elif name in DINO_PLANS:
        train_dino(DINO_PLANS[name], folder, args.device, args.until)
    else:
        train(lengthened(PLANS[name], args.length), folder, args.device, args.until, args.workers)


def train_several(args: argparse.Namespace) -> None:
    """Train CLIPs side by side, each in a folder of its own under --folder, by default runs."""
    if others := [name for name in args.models if name not in PLANS]:
        raise MethodError(f"{', '.join(others)} cannot be trained beside others, only {', '.join(PLANS)}")
    plans = {name: lengthened(PLANS[name], args.length) for name in args.models}
    train_together(plans, make_folder(args.folder or Path("runs")), args.device, args.until, args.workers)


def check_numbers(args: argparse.Namespace) -> None:
    """MethodError for a number that no training can have."""
    for name in ("until", "workers", "steps", "batch", "views"):
        if getattr(args, name) is not None:
            count(f"--{name}", getattr(args, name), high=MOST)
    for name in ("length", "rate"):
        if getattr(args, name) is not None:
            number(f"--{name}", getattr(args, name), 0, MOST, above=True)


def default_folder(name: str) -> Path:
    """Where a model's training keeps its checkpoint and pools: runs/NAME; ICLIP and its ablations share runs/iclip."""
    return Path("runs", "iclip", name) if name in ICLIP_PLANS else Path("runs", name)


def parser() -> argparse.ArgumentParser:
    names = [*PLANS, *DINO_PLANS, *ICLIP_PLANS, blip.NAME]
    found = argparse.ArgumentParser("clip-explain train", description="Train an embedded model, or go on with it.")
    found.add_argument("models", nargs="+", metavar="model", choices=names, help=", ".join(names))
    found.add_argument("--folder", type=Path, default=None, help="checkpoints and pools; default runs/MODEL")
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument("--length", type=float, default=1.0, help="of a CLIP: each stage takes so many times its steps")
    found.add_argument("--workers", type=int, default=None, help="processes that draw batches; default: one, or all")
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
