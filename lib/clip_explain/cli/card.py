"""`clip-explain card`: export a trained embedded model, measure it and write its card."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from clip_explain.checks import count
from clip_explain.cli.train import default_folder
from clip_explain.datasets.record import read_json
from clip_explain.embedded.cards import blip, clip, iclip
from clip_explain.embedded.training.blip import NAME as BLIP
from clip_explain.embedded.training.plans import DINO_PLANS, ICLIP_PLANS, PLANS
from clip_explain.models.embedded import embedded_path

# Of each model its export (name, folder) and what measures it (name, folder, scenes).
OWN = dict.fromkeys([*DINO_PLANS, *ICLIP_PLANS], (iclip.export, iclip.measure))
OWN[BLIP] = (blip.export, blip.measure)
MOST_SCENES = 10**6


def main(argv: Sequence[str]) -> None:
    """Export, unless only measuring; then measure and write the card with its figures."""
    args = parser().parse_args(argv)
    export, measure = OWN.get(args.model, (clip.export, clip.measure))
    folder = args.folder or default_folder(args.model)
    count("--scenes", args.scenes, high=MOST_SCENES)
    if not args.measure_only:
        clip.write_card(args.model, export(args.model, folder))
    card = read_json(embedded_path(args.model).with_suffix(".json"))
    found = clip.noted(measure(args.model, folder, args.scenes))
    clip.write_card(args.model, {**card, "held_out_scenes": args.scenes, **found})
    print(json.dumps(found, indent=1))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        "clip-explain card", description="Export a trained embedded model, measure it and write its card."
    )
    found.add_argument("model", choices=[*PLANS, *OWN])
    found.add_argument("--folder", type=Path, default=None, help="the training's folder; default as there")
    found.add_argument("--scenes", type=int, default=2000, help="held-out scenes for each figure of the card")
    found.add_argument("--measure-only", action="store_true", help="keep the weights, measure again")
    return found
