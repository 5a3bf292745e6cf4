"""Deletion and insertion against the bare batched forward: `python benchmarks/faithfulness_throughput.py`.

ViT-B/16 with random weights, 224 x 224 images, float32. The unit is `encode_image` of as many ready images in batches
of the same size; a ratio above 0.9 is wanted, 1 is as fast. Each round makes every call in turn, and a ratio is formed
within its round, so that other work on the machine falls on all calls alike. It prints, and writes nothing.
"""

import argparse
import warnings

import torch

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from clip_explain.papers.timing import LIMITS, faithfulness_calls, random_vit_b16, ratios  # noqa: E402


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
    pixels, maps = torch.randn(options.images, 3, 224, 224), torch.rand(options.images, 1, 14, 14)
    model = random_vit_b16(options.device)
    calls = faithfulness_calls(model, pixels.to(model.device), maps.to(model.device), options.steps, options.batch_size)
    table = ratios(calls, options.rounds, options.device)
    print(f"median of {options.rounds} rounds, {options.device}, {options.threads} threads")
    print(f"{'':26}{'seconds':>9}{'throughput':>12}{'by CPU time':>13}{'wanted':>8}")
    for name, row in table.iterrows():
        wanted = f"{1 / LIMITS[name]:.2f}" if name in LIMITS else ""
        print(f"{name:26}{row.seconds:9.2f}{1 / row.ratio:12.3f}{1 / row.cpu_ratio:13.3f}{wanted:>8}")


if __name__ == "__main__":
    main()
