"""Deletion and insertion against the bare batched forward: `python benchmarks/faithfulness_throughput.py`.

ViT-B/16 with random weights, 224 x 224 images, float32. The unit is `encode_image` of as many ready images in batches
of the same size; a ratio above 0.9 is wanted, 1 is as fast. Each round makes every call in turn, and a ratio is formed
within its round, so that other work on the machine falls on all calls alike. It prints, and writes nothing.
"""

import argparse
import warnings

import torch

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from clip.model import CLIP  # noqa: E402

from clip_explain.metrics.faithfulness import PROTOCOLS, curves  # noqa: E402
from clip_explain.metrics.readouts import classification  # noqa: E402
from clip_explain.model import Clip  # noqa: E402
from clip_explain.query import unit  # noqa: E402
from clip_explain.timing import ratios  # noqa: E402

CLASSES = 1000
WANTED = 0.9


def random_vit_b16(device: str) -> Clip:
    """ViT-B/16's image encoder; the text encoder is cut to one layer, since it takes no part."""
    network = CLIP(512, 224, 12, 768, 16, 77, 49408, 64, 1, 1).eval().requires_grad_(False)
    return Clip(network.to(device), "random ViT-B/16", "", None)


def cases(model: Clip, options: argparse.Namespace) -> dict:
    """What is timed, by name; the first is the unit, and embeds as many images as each of the others."""
    device, every = options.device, 100 // options.steps
    count = options.images * (options.steps + 1)
    pixels = torch.randn(options.images, 3, 224, 224, device=device)
    ready = pixels.repeat(options.steps + 1, 1, 1, 1)
    maps = torch.rand(options.images, 1, 14, 14, device=device)
    texts = unit(torch.randn(CLASSES, 512, device=device))
    readouts = classification(texts, torch.zeros(options.images, dtype=torch.long, device=device))

    @torch.no_grad()
    def bare():
        return [model.network.encode_image(batch) for batch in ready.split(options.batch_size)]

    def curve(mode):
        return curves(model, pixels, maps, readouts, "grad_eclip", mode, every=every, batch_size=options.batch_size)

    return {f"encode_image of {count}": bare} | {
        mode: lambda mode=mode: curve(mode) for mode in PROTOCOLS["grad_eclip"]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of the 100, a divisor of it")
    parser.add_argument("--batch-size", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    table = ratios(cases(random_vit_b16(options.device), options), options.rounds, options.device)
    print(f"median of {options.rounds} rounds, {options.device}, {options.threads} threads")
    print(f"{'':26}{'seconds':>9}{'throughput':>12}{'by CPU time':>13}{'wanted':>8}")
    for name, row in table.iterrows():
        print(f"{name:26}{row.seconds:9.2f}{1 / row.ratio:12.3f}{1 / row.cpu_ratio:13.3f}{WANTED:8}")


if __name__ == "__main__":
    main()
