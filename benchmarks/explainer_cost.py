"""What every explainer costs, in time and memory: `python benchmarks/explainer_cost.py`.

ViT-B/16 with random weights, one 224 x 224 image, one text, float32; image methods in units of `encode_image`, word
methods of `encode_text`, RISE and Shapley values of bare batched forwards of as many images as they mask. Targets are
given as directions. Each round times every line once, in turn. It prints, and writes nothing without --out.
"""

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from clip_explain.explainers import METHODS, explain  # noqa: E402
from clip_explain.images import Pixels, preprocess  # noqa: E402
from clip_explain.models.embed import tokenize  # noqa: E402
from clip_explain.models.model import Model  # noqa: E402
from clip_explain.papers.saving import write  # noqa: E402
from clip_explain.papers.timing import LIMITS, Call, image_calls, peak_memory, random_vit_b16, ratios, word_calls  # noqa: E402
from clip_explain.request import make_request, share_forward  # noqa: E402

BATCH = 16  # masked images at once, and images where memory is measured
TOGETHER = "14 methods, one request"
FAST = ("self_attention", "rollout", "grad_cam", "attention_grad_cam", "game", "all_gradients", "last_gradient")
FAST += ("maskclip", "itsm", "reversed_itsm", "legrad", "grad_eclip", "clip_surgery", "gem")
TEXT = "two people riding brown horses on the beach at sunset"


def groups(model: Model, images: int, masks: int = 2 * BATCH, steps: int = 10) -> list[dict[str, Call]]:
    """Every line by name in groups, each with its unit first. `masks` is for RISE and shapley, `steps` for M2IB."""
    random = torch.Generator().manual_seed(0)
    drawn = (torch.randn(n, 3, 224, 224, generator=random) for n in (images, BATCH))
    pixels, crowd = (preprocess(model, each) for each in drawn)
    targets = torch.randn(64, 512, generator=random).to(model.device)
    options = {
        "clip_surgery": dict(redundant=targets[1:2]),  # the texts' features are given, that of the empty text as well
        "m2ib": dict(steps=steps),
        "rise": dict(masks=masks, batch_size=BATCH),
        "shapley": dict(samples=masks - 2, batch_size=BATCH),  # it adds the empty and the whole image
    }
    found = image_calls(model, pixels, targets[:1], options=options)
    found[TOGETHER] = lambda: together(model, pixels, targets[:1], options)
    found["grad_eclip, 64 texts"] = lambda: explain(model, pixels, targets)
    found["grad_eclip, 12 layers"] = lambda: explain(model, pixels, targets[:1], layers=12)
    encode = image_calls(model, crowd, targets, [])["encode_image"]
    bare = {f"encode_image of {BATCH}, batched": lambda: [encode() for _ in range(masks // BATCH)]}
    masked = bare | {name: found.pop(name) for name in ("rise", "shapley")}
    slow = {name: found[name] for name in ("encode_image", "m2ib")}
    del found["m2ib"]
    texts = [TEXT] * images
    words = word_calls(model, tokenize(model, texts), texts, targets[:1], options={"m2ib": dict(steps=steps)})
    words = {name if name == "encode_text" else f"{name}, words": call for name, call in words.items()}
    return [found, slow, masked, words]


def together(model: Model, pixels: Pixels, targets: Tensor, options: dict[str, dict]) -> None:
    """The 14 methods of the first edition that are not slow, on one image and text, sharing forwards."""
    request = make_request(model, pixels, targets)
    share_forward(request)
    for method in FAST:
        METHODS[method].image(request, **options.get(method, {}))


def time_table(model: Model, rounds: int) -> pd.DataFrame:
    image, slow, masked, words = groups(model, images=1)
    few = max(1, rounds // 3)
    tables = [ratios(image, rounds), ratios(slow, few)[1:], ratios(masked, few), ratios(words, rounds)]
    table = pd.concat(tables)
    limits = LIMITS | {TOGETHER: 4.0}
    return table.assign(limit=[limits.get(name) for name in table.index])


def memory_of(name: str, device: str) -> float:
    """MB of one line at 16 images and one text, or 16 texts and one image, above the loaded model."""
    model = random_vit_b16(device)
    lines = {line: call for group in groups(model, BATCH, masks=BATCH, steps=1) for line, call in group.items()}
    with torch.no_grad():  # what the backend takes at the first forward and keeps
        model.network.encode_image(torch.zeros(1, 3, 224, 224, device=model.device))
    return peak_memory(lines[name], device)


def memory_in_fresh_process(name: str, options: argparse.Namespace) -> float:
    flags = ["--memory-of", name, "--device", options.device, "--threads", str(options.threads)]
    shown = subprocess.run([sys.executable, __file__, *flags], check=True, capture_output=True, text=True)
    return float(shown.stdout)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true", help=f"measure the peak memory at batch {BATCH} as well")
    parser.add_argument("--memory-of", metavar="LINE", help="print the MB of one line at that batch, and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the table there, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(memory_of(options.memory_of, options.device))
        return
    table = time_table(random_vit_b16(options.device), options.rounds)
    if options.memory:
        table["peak_mb"] = [memory_in_fresh_process(name, options) for name in table.index]
    print(f"median of {options.rounds} rounds, {options.device}, {options.threads} threads; seconds are of one call")
    print(table.to_string(float_format="{:.3f}".format, na_rep=""))
    if options.out:
        write(options.out, table.to_csv().encode())


if __name__ == "__main__":
    main()
