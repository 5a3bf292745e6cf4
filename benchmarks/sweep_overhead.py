"""What a sweep costs beside the bare calls, in memory, and when it is killed: `python benchmarks/sweep_overhead.py`.

tiny-vit on rendered scenes, five cheap methods, localization metrics, float32 on the CPU, one thread. Each part can be
left out or made smaller by its option (0 leaves it out). Times are wall clock, so nothing else should run beside it.
"""

import argparse
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from clip_explain import datasets  # noqa: E402
from clip_explain.directions import targets  # noqa: E402
from clip_explain.explainers import METHODS  # noqa: E402
from clip_explain.images import preprocess  # noqa: E402
from clip_explain.metrics.localization import LOCALIZATION  # noqa: E402
from clip_explain.models import load  # noqa: E402
from clip_explain.request import Request  # noqa: E402
from clip_explain.sweep.run import sweep  # noqa: E402

CHOSEN = ["self_attention", "maskclip", "attention_grad_cam", "last_gradient", "grad_eclip"]
METRICS = ["pointing_game", "energy_pointing_game", "iou_mean"]
LIMITS = {"sweep / bare loop": 1.25, "one process / two": 1.6, "peak memory, most / fewest images": 1.05}


def arguments_of(out: str | Path, images: int, **changed) -> dict:
    given = dict(model="tiny-vit", dataset="scenes", methods=CHOSEN, metrics=METRICS, out=str(out), images=images)
    return given | dict(device="cpu", progress=False) | changed


def bare_loop(images: int) -> None:
    """The same calls by hand: one request an image for all methods, each text embedded once."""
    model, texts = load("tiny-vit", "cpu"), {}
    for record in datasets.read("scenes", images):
        for text in record.texts:
            if text not in texts:
                texts[text] = targets(model, text)[0]
        features = torch.stack([texts[text] for text in record.texts])
        request = Request(model, preprocess(model, record.image), features)
        for method in CHOSEN:
            maps = METHODS[method].image(request)[0]
            for metric in METRICS:
                LOCALIZATION[metric](maps, record.masks).tolist()


def seconds(call) -> float:
    """CPU time of this process: what the call costs, whatever else the machine does."""
    start = time.process_time()
    call()
    return time.process_time() - start


def overhead(images: int, folder: Path) -> float:
    """CPU time of a sweep in units of that of the bare loop, the second round of each."""
    pairs = []
    for turn in range(2):
        swept = seconds(lambda turn=turn: sweep(**arguments_of(folder / f"overhead{turn}", images)))
        pairs.append((swept, seconds(lambda: bare_loop(images))))
    print(f"{images} images: sweep {pairs[1][0]:.1f} s, bare loop {pairs[1][1]:.1f} s of CPU time")
    return pairs[1][0] / pairs[1][1]


def speedup(images: int, folder: Path) -> float:
    """Wall time with one local process in units of that with two, starting included."""
    times = []
    for processes in (1, 2):
        start = time.perf_counter()
        options = dict(processes=processes) if processes > 1 else {}
        sweep(**arguments_of(folder / f"processes{processes}", images, **options))
        times.append(time.perf_counter() - start)
    print(f"{images} images: one process {times[0]:.1f} s, two {times[1]:.1f} s")
    return times[0] / times[1]


def peak_megabytes(images: int, folder: Path) -> float:
    """Peak memory of a fresh process that sweeps so many images."""
    command = [sys.executable, __file__, "--peak", str(images), "--folder", str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def memory(images: int, folder: Path) -> float:
    """Peak memory with ten times as many images in units of that with few."""
    few, many = (peak_megabytes(count, folder / f"memory{count}") for count in (images // 10, images))
    print(f"peak memory: {images // 10} images {few:.0f} MB, {images} images {many:.0f} MB")
    return many / few


def killed(kills: int, images: int, folder: Path) -> bool:
    """Kill a sweep so often, at random moments, let it finish, and compare the files with an undisturbed sweep's."""
    context, rng, out = multiprocessing.get_context("forkserver"), random.Random(0), folder / "killed"
    context.set_forkserver_preload(["clip_explain.sweep.run"])
    given = dict(methods=["self_attention", "random"], shard_size=1)
    sweep(**arguments_of(folder / "undisturbed", images, **given))
    done = 0
    for turn in range(kills):
        child = context.Process(target=sweep, kwargs=arguments_of(out, images, **given))
        child.start()
        wait_for_shards(out, 1 + turn * images // kills, child)
        time.sleep(rng.uniform(0, 0.3))
        done += child.is_alive()
        child.kill()
        child.join()
    sweep(**arguments_of(out, images, **given))
    names = ("table.parquet", "errors.parquet", "summary.csv")
    print(f"{done} of {kills} kills hit a running sweep of {images} shards")
    return all((out / name).read_bytes() == (folder / "undisturbed" / name).read_bytes() for name in names)


def wait_for_shards(out: Path, count: int, child) -> None:
    while len(list(out.glob("shards/0*"))) < count and child.is_alive():
        time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500, help="for the overhead")
    parser.add_argument("--process-images", type=int, default=1000, help="for one and two processes")
    parser.add_argument("--memory-images", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        sweep(**arguments_of(options.folder, options.peak))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as name:
        measure(options, Path(name))


def measure(options: argparse.Namespace, folder: Path) -> None:
    found = {}
    if options.images:
        found["sweep / bare loop"] = overhead(options.images, folder)
    if options.process_images:
        found["one process / two"] = speedup(options.process_images, folder)
    if options.memory_images:
        found["peak memory, most / fewest images"] = memory(options.memory_images, folder)
    for name, value in found.items():
        print(f"{name:36}{value:8.3f}   limit {LIMITS[name]}")
    if options.kills:
        print("after the kills: " + ("the same files" if killed(options.kills, 40, folder) else "OTHER FILES"))


if __name__ == "__main__":
    main()
