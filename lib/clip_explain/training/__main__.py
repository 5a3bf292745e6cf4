"""`python -m clip_explain.training tiny-vit`: train an embedded model, or go on with its training."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from clip_explain.training.loop import train
from clip_explain.training.plans import PLANS


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an embedded model, or go on with its training.")
    parser.add_argument("model", choices=list(PLANS))
    parser.add_argument("--folder", type=Path, default=None, help="checkpoints and pools; default runs/MODEL")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=int, default=None, help="stop after so many steps in all")
    args = parser.parse_args()
    folder = args.folder or Path("runs") / args.model
    folder.mkdir(parents=True, exist_ok=True)
    plan = PLANS[args.model]
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=1))
    train(plan, folder, args.device, args.until)


if __name__ == "__main__":
    main()
