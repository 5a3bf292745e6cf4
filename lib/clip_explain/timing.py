"""What an explanation costs: seconds in units of a plain forward, and peak memory.

Above the explainers; benchmarks/explainer_cost.py prints it for all of them, notebook 08 for the paper's methods.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from clip_explain.errors import MethodError
from clip_explain.explainers import EXPLAINERS, WORD_EXPLAINERS, explain, explain_words
from clip_explain.model import Clip

Call = Callable[[], object]
MEGABYTE = 2**20


def image_calls(
    model: Clip,
    pixels: Tensor,
    targets: Tensor,
    methods: Iterable[str] = tuple(EXPLAINERS),
    options: Mapping[str, dict] | None = None,
) -> dict[str, Call]:
    """The model's own `encode_image`, then each method on preprocessed pixels and directions, as calls to be timed.

    `options` holds those of a method under its name. Nothing is cached from call to call.
    """
    encode = torch.no_grad()(lambda: model.network.encode_image(pixels))
    given = options or {}
    return {"encode_image": encode} | {
        method: lambda method=method: explain(model, pixels, targets, method, **given.get(method, {}))
        for method in methods
    }


def word_calls(
    model: Clip,
    tokens: Tensor,
    texts: list[str],
    embeddings: Tensor,
    methods: Iterable[str] = tuple(WORD_EXPLAINERS),
    options: Mapping[str, dict] | None = None,
) -> dict[str, Call]:
    """The model's own `encode_text` of the tokenized texts, then each word method on them and images' embeddings."""
    encode = torch.no_grad()(lambda: model.network.encode_text(tokens))
    given = options or {}
    return {"encode_text": encode} | {
        method: lambda method=method: explain_words(model, embeddings, texts, method, **given.get(method, {}))
        for method in methods
    }


def ratios(calls: Mapping[str, Call], rounds: int = 9, device: str | torch.device = "cpu") -> pd.DataFrame:
    """Time of every call in units of the first, by name: medians over rounds, each of which makes every call in turn.

    Columns: `seconds` (wall); `ratio`, with its quartiles `low` and `high`, wall; `cpu_ratio`, CPU time of all threads.
    A ratio is formed within its round, so that other work on the machine falls on all calls alike. MethodError for
    less than one round.
    """
    if rounds < 1:
        raise MethodError(f"got rounds={rounds}, expected at least 1")
    for call in calls.values():  # the first call of each allocates
        call()
    times = [{name: _seconds(call, device) for name, call in calls.items()} for _ in range(rounds)]
    wall, cpu = (pd.DataFrame([{name: pair[i] for name, pair in each.items()} for each in times]) for i in (0, 1))
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
    """How far one call drives memory above what is held before it, in MB (2^20 bytes), its result included.

    On CUDA it is what torch allocates, elsewhere the process's resident peak (Linux). There, measure one call in a
    fresh process: an allocator keeps some of what an earlier one gave back.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    call()
    return max(0.0, _resident("VmHWM") - before)


def _resident(field: str) -> float:
    """MB held now (VmRSS) or at most so far (VmHWM); getrusage's peak would be the parent's where that held more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _seconds(call: Call, device: str | torch.device) -> tuple[float, float]:
    """Wall time and CPU time (all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu
