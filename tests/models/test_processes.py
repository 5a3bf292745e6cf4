"""A model in processes: explained again and again in one, and in a child of one."""

import gc
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
import torch

import clip_explain as cx

FORKS = "fork" in multiprocessing.get_all_start_methods()
EXPLAIN_AND_FORK = """
import multiprocessing
import sys
import numpy as np
import torch
import clip_explain as cx

def explain(model):
    cx.explain(model, image, "a blue cone")

torch.set_num_threads(2)
image = np.zeros((64, 64, 3), np.uint8)
model = cx.load(sys.argv[1], "cpu")
explain(model)  # now OpenMP's threads have begun
child = multiprocessing.get_context("fork").Process(target=explain, args=(model,))
child.start()
child.join(60)
child.kill()
child.join()
assert child.exitcode == 0, child.exitcode
"""


@pytest.mark.skipif(not FORKS, reason="no fork on this system")
def test_a_forked_process_explains_though_its_parent_had_threads(weights):
    done = subprocess.run([sys.executable, "-c", EXPLAIN_AND_FORK, weights], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


@pytest.mark.parametrize("method", ["grad_eclip", "clip_surgery", "rise"])
def test_explanations_leave_nothing_in_memory(weights, method):
    """Each of another image for another text, as in a long process."""
    model, rng, before = cx.load(weights, "cpu"), np.random.default_rng(0), None
    options = {"rise": {"masks": 8}, "clip_surgery": {"layers": 1}}.get(method, {})
    for turn in range(20):
        image = rng.integers(0, 256, (64, 64, 3), np.uint8)
        cx.explain(model, image, f"a cone number {turn}", method=method, **options)
        before = tensors() if turn == 1 else before
    assert tensors() == before
