"""What the tests of sweeps share."""

import pytest
import torch

from clip_explain.sweep.run import sweep
from small_sweeps import settings


@pytest.fixture(autouse=True)
def one_thread():
    """As the worker processes have: sums in another order would differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def whole(weights, tmp_path_factory):
    """The folder and summary of a sweep that was not disturbed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, sweep(**settings(weights, out))
