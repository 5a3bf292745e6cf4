"""What the explainers that draw at random and run many forwards share: seeds, counts, and running out of memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clip_explain.errors import MethodError


def seeded(generator: torch.Generator | int) -> torch.Generator:
    """The generator itself, or a new one on the CPU for a seed: the same draws whatever the model's device."""
    return torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator


def check_counts(**counts: int) -> None:
    """MethodError for the first count that is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise MethodError(f"got {name}={count}, expected at least 1")


@contextmanager
def out_of_memory(count: int, batch: str = "batch_size={}") -> Iterator[None]:
    """Turns torch's running out of memory, on any device, into a MethodError that names a smaller `batch`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        advice = f"try {batch.format(count // 2)}" if count > 1 else "use smaller images or a larger machine"
        raise MethodError(f"out of memory with {batch.format(count)}: {advice}") from error
