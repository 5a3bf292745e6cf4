"""What every fuzz shares: a call with a limit of time, what came of it, and values that no one should pass."""

import json
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from clip_explain.errors import ClipExplainError

SECONDS = 10  # that small work may take
COUNTS: Counter[str] = Counter()  # "images: right" and the like, of this session

JUNK = st.sampled_from(
    [None, True, 0, 1, -1, 3, 10**400, 1.5, -0.0, float("nan"), float("inf"), 1e308, 1e-320]
    + ["", "a cube", "\0", "\ud800", "mean", "a" * 3000, "None", b"a cube", [], [None], ["a", 3], {}, {"a": 1}, (1, 2)]
    + [(0, 0), (-1, 4), (10**9, 10**9), object(), len, slice(0, 2), Path("nope"), Path("\0"), range(3)]
    + [torch.zeros(()), torch.zeros(0), torch.zeros(2, 2), torch.full((2, 4, 4), torch.nan), torch.ones(2, 4, 4).long()]
    + [torch.full((2, 4, 4), torch.inf), torch.ones(2, 16, 16) * 2, torch.zeros(2, 16, 16, dtype=torch.bool)]
    + [torch.full((2, 16, 16), torch.nan), torch.zeros(1, 3, 64, 64), torch.complex(torch.ones(2), torch.ones(2))]
    + [np.zeros((3, 3)), np.full((4, 4, 3), np.nan), np.zeros((4, 4, 3), np.uint8), np.array(["a"]), np.float32(0.5)]
    + [np.int64(2), Image.new("RGB", (9, 9)), Image.new("L", (0, 5)), np.zeros((0, 4, 3), np.uint8), torch.float16]
)


def bounded(examples: int):
    """Settings of so many examples, the same ones in every session."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=checks)


@contextmanager
def limited(seconds: int = SECONDS):
    """TimeoutError after so many seconds."""

    def stop(*_):
        raise TimeoutError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(family: str, call):
    """What a call gives, or None after a clear error; every other exception fails the test. Both are counted."""
    with limited():
        try:
            found = call()
        except ClipExplainError as error:
            assert str(error) and len(str(error)) < 20_000
            COUNTS[f"{family}: clear errors"] += 1
            return None
    COUNTS[f"{family}: right answers"] += 1
    return found


def report() -> str:
    return json.dumps(dict(sorted(COUNTS.items())), indent=1)
