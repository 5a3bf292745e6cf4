"""What an explanation costs, in units of the model's own `encode_image`: `python benchmarks/explainer_cost.py`.

ViT-B/16 with random weights, one 224 x 224 image, float32, targets given as directions. Each round times every line
once, in turn, and the ratios are formed within a round, so that other work on the machine falls on all lines alike.
"""

import argparse
import statistics
import time
import warnings

import torch

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from clip.model import CLIP  # noqa: E402

from clip_explain.explainers import explain  # noqa: E402
from clip_explain.model import Clip  # noqa: E402

LIMITS = {"grad_eclip, 1 text": 1.0, "grad_eclip, 64 texts": 1.15, "self_attention": 1.1}


def random_vit_b16(device: str) -> Clip:
    """ViT-B/16's image encoder; the text encoder is cut to one layer, since it takes no part."""
    network = CLIP(512, 224, 12, 768, 16, 77, 49408, 64, 1, 1).eval().requires_grad_(False)
    return Clip(network.to(device), "random ViT-B/16", "", None)


def cases(model: Clip, pixels: torch.Tensor, targets: torch.Tensor) -> dict:
    """What is timed, by name; the first is the unit."""
    network = model.network
    return {
        "encode_image": torch.no_grad()(lambda: network.encode_image(pixels)),
        "grad_eclip, 1 text": lambda: explain(model, pixels, targets[:1]),
        "grad_eclip, 64 texts": lambda: explain(model, pixels, targets),
        "grad_eclip, 1 text, native heads": lambda: explain(model, pixels, targets[:1], heads="native"),
        "grad_eclip, 1 text, 12 layers": lambda: explain(model, pixels, targets[:1], layers=12),
        "self_attention": lambda: explain(model, pixels, targets[:1], method="self_attention"),
    }


def seconds(call, device: str) -> tuple[float, float]:
    """Wall time and CPU time (all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = random_vit_b16(options.device)
    pixels = torch.randn(1, 3, 224, 224, device=options.device)
    calls = cases(model, pixels, torch.randn(64, 512, device=options.device))
    for call in calls.values():  # the first call of each allocates
        call()
    rounds = [{name: seconds(call, options.device) for name, call in calls.items()} for _ in range(options.repeats)]
    print(f"median of {options.repeats} rounds, {options.device}, {options.threads} threads")
    print(f"{'':34}{'ms':>9}{'ratio':>9}{'CPU ratio':>11}{'limit':>8}")
    for name in calls:
        wall = statistics.median(each[name][0] for each in rounds) * 1000
        ratios = [statistics.median(each[name][i] / each["encode_image"][i] for each in rounds) for i in (0, 1)]
        print(f"{name:34}{wall:9.1f}{ratios[0]:9.3f}{ratios[1]:11.3f}{LIMITS.get(name, ''):>8}")


if __name__ == "__main__":
    main()
