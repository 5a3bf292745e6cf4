"""What an explanation costs: seconds in units of a plain forward, the most that it may cost, and peak memory.

Above the explainers and metrics/; the scripts in benchmarks/ print it, costs.py makes rows of it for notebook 08.
"""

import ctypes
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from clip_explain import images
from clip_explain.directions import targets
from clip_explain.errors import MethodError
from clip_explain.explainers import explain, explain_words, names_of
from clip_explain.metrics.faithfulness import PROTOCOLS, curves
from clip_explain.metrics.readouts import classification
from clip_explain.models.model import Model, unit
from clip_explain.models.weights import VOCABULARY, clip
from clip_explain.papers.variants import RELEASED, SIXTY, variant
from clip_explain.texts import CONTEXT_NOUNS, SURGERY_TEMPLATES

Call = Callable[[], object]
MEGABYTE = 2**20

# The most that a method may cost for one image and text, in units of `encode_image`; for deletion, insertion and the
# methods that mask the image, 90 % of the throughput of bare forwards of as many images in batches of the same size.
LIMITS = {
    "self_attention": 1.1,
    "rollout": 1.1,
    "maskclip": 1.1,
    "itsm": 1.1,
    "reversed_itsm": 1.1,
    "iclip": 1.1,  # in units of its own encoder; timed here on a CLIP, which does the same work
    "last_gradient": 1.3,
    "game": 2.5,
    "all_gradients": 2.5,
    "legrad": 2.5,
    "clip_surgery": 1.4,
    "m2ib": 55,
    "grad_eclip": 1.0,
    "grad_eclip, 64 texts": 1.15,
    "rise": 1 / 0.9,
    "shapley": 1 / 0.9,
    "deletion": 1 / 0.9,
    "insertion": 1 / 0.9,
}


def random_vit_b16(device: str | torch.device) -> Model:
    """OpenAI's ViT-B/16 with seeded random weights; the cost of a method does not depend on the weights' values."""
    torch.manual_seed(0)
    network = clip.model.CLIP(512, 224, 12, 768, 16, 77, VOCABULARY, 512, 8, 12).eval().requires_grad_(False)
    return Model(network.to(device), "random ViT-B/16", "", clip.clip._tokenizer)


def image_calls(
    model: Model,
    pixels: Tensor,
    targets: Tensor,
    methods: Iterable[str] = tuple(names_of()),
    options: Mapping[str, dict] | None = None,
) -> dict[str, Call]:
    """The model's own `encode_image`, then each method on preprocessed pixels and directions, as calls to be timed.

    `options` holds those of a method under its name. Nothing is cached from call to call.
    """
    pixels = images.pixels(model, pixels)
    given = options or {}
    calls: dict[str, Call] = {"encode_image": torch.no_grad()(lambda: model.encode_image(pixels))}
    for method in methods:
        calls[method] = partial(explain, model, pixels, targets, method, **given.get(method, {}))
    return calls


def word_calls(
    model: Model,
    tokens: Tensor,
    texts: list[str],
    embeddings: Tensor,
    methods: Iterable[str] = tuple(names_of(words=True)),
    options: Mapping[str, dict] | None = None,
) -> dict[str, Call]:
    """The model's own `encode_text` of the tokenized texts, then each word method on them and images' embeddings."""
    given = options or {}
    calls: dict[str, Call] = {"encode_text": torch.no_grad()(lambda: model.encode_text(tokens))}
    for method in methods:
        calls[method] = partial(explain_words, model, embeddings, texts, method, **given.get(method, {}))
    return calls


def released_calls(model: Model, pixels: Tensor, targets: Tensor) -> dict[str, Call]:
    """Methods as the code released with GE has them, "game, as released"; and CLIP Surgery's "sixty texts".

    `targets` are 60 directions or more, of which the other methods explain the first. M2IB is left out: its released
    reading costs the same.
    """
    calls: dict[str, Call] = {}
    for name, options in RELEASED.items():
        if name not in ("clip_surgery", "m2ib"):
            method, spelled = variant(name)
            calls[f"{name}, as released"] = partial(explain, model, pixels, targets[:1], method, **spelled, **options)
    calls["sixty texts"] = partial(explain, model, pixels, targets[:SIXTY], "clip_surgery", **RELEASED["clip_surgery"])
    return calls


def text_calls(model: Model, text: str, prompts: int) -> dict[str, Call]:
    """The embedding of one "text", and of some "prompts" of the 60 x 85 that the released CLIP Surgery embeds."""
    few = SURGERY_TEMPLATES[:prompts]
    return {"text": partial(targets, model, text), "prompts": partial(targets, model, CONTEXT_NOUNS[0], few)}


def faithfulness_calls(
    model: Model, pixels: Tensor, maps: Tensor, steps: int = 20, batch_size: int = 21, classes: int = 1000
) -> dict[str, Call]:
    """Bare forwards, then Grad-ECLIP's deletion and insertion (top-1 among random classes) of as many images.

    `pixels` are preprocessed, `maps` raw (images, maps, grid_h, grid_w); `steps`, a divisor of 100, are looked at.
    """
    random = torch.Generator().manual_seed(0)
    texts = unit(torch.randn(classes, model.embedding_size, generator=random, dtype=torch.float32).to(pixels))
    readouts = classification(texts, torch.zeros(len(pixels), dtype=torch.long, device=pixels.device))
    ready = pixels.repeat(maps.shape[1] * (steps + 1), 1, 1, 1).split(batch_size)
    calls: dict[str, Call] = {
        "encode_image, batched": torch.no_grad()(lambda: [model.encode_image(batch) for batch in ready])
    }
    for mode in PROTOCOLS["grad_eclip"]:
        options = dict(mode=mode, every=100 // steps, batch_size=batch_size)
        calls[mode] = partial(curves, model, pixels, maps, readouts, **options)
    return calls


def timed(rounds: Iterable[Mapping[str, Call]], device: str | torch.device = "cpu") -> pd.DataFrame:
    """Every call of every round in turn: columns `round`, `method`, `seconds` (wall), `cpu_seconds` (all threads).

    The calls of the first round are made once before, untimed: a first call allocates. MethodError without a round.
    """
    rows = []
    for number, calls in enumerate(rounds):
        for call in () if number else calls.values():
            call()
        rows += [(number, name, *_seconds(call, device)) for name, call in calls.items()]
    if not rows:
        raise MethodError("got no round of calls to time, expected at least 1")
    return pd.DataFrame(rows, columns=["round", "method", "seconds", "cpu_seconds"])


def ratios(calls: Mapping[str, Call], rounds: int = 9, device: str | torch.device = "cpu") -> pd.DataFrame:
    """Time of every call in units of the first, by name: medians over rounds, each of which makes every call in turn.

    Columns: `seconds` (wall); `ratio`, with its quartiles `low` and `high`, wall; `cpu_ratio`, CPU time of all threads.
    A ratio is formed within its round, so that other work on the machine falls on all calls alike. MethodError for
    less than one round.
    """
    if rounds < 1:
        raise MethodError(f"got rounds={rounds}, expected at least 1")
    times = timed([calls] * rounds, device).pivot(index="round", columns="method")
    wall, cpu = (times[column][list(calls)] for column in ("seconds", "cpu_seconds"))
    share = wall.div(wall.iloc[:, 0], axis=0)
    columns = {
        "seconds": wall.median(),
        "ratio": share.median(),
        "low": share.quantile(0.25),
        "high": share.quantile(0.75),
        "cpu_ratio": cpu.div(cpu.iloc[:, 0], axis=0).median(),
    }
    return pd.DataFrame(columns).rename_axis("method")


def peak_memory(call: Call, device: str | torch.device = "cpu") -> float:
    """The memory that one call adds at its peak, its result included, in MB (2^20 bytes).

    On CUDA it is what torch allocates, elsewhere the process's resident peak (Linux). The allocator (glibc's) is first
    asked to return what earlier calls freed; a fresh process holds nothing of the kind, so its measurement is exact.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    with suppress(OSError, AttributeError):  # other C libraries lack this function
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    call()
    return max(0.0, _resident("VmHWM") - before)


def _resident(field: str) -> float:
    """Resident memory in MB, now (VmRSS) or at its peak (VmHWM); getrusage may report the parent's peak instead."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _seconds(call: Call, device: str | torch.device) -> tuple[float, float]:
    """Wall time and CPU time (all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu
