"""Sweeps that are stopped, at any moment and by any means, and go on."""

import os
import random
import signal
import sys
import time
from contextlib import suppress

import pytest
import torch

from clip_explain.cli import main
from clip_explain.cli.sweep import stopped_by_signals
from clip_explain.sweep import run as runs
from clip_explain.sweep.run import sweep
from small_sweeps import FORKS, contents, settings


def sweep_by_one_thread(**given):
    """A sweep in a process of its own, which would take a thread a core."""
    torch.set_num_threads(1)
    sweep(**given)


def test_kills_at_random_moments_change_nothing(weights, tmp_path):
    """Each child is killed at a random moment of the shard, or of the last files, that follows the next one."""
    rng, out, reference = random.Random(1), tmp_path / "run", tmp_path / "reference"
    sweep(**settings(weights, reference, images=24, shard_size=1))
    for _ in range(4):
        child = FORKS.Process(target=sweep_by_one_thread, kwargs=settings(weights, out, images=24, shard_size=1))
        child.start()
        before = len(list(out.glob("shards/0*")))
        while len(list(out.glob("shards/0*"))) == before and child.is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        child.kill()
        child.join()
        assert child.exitcode == -9 and len(list(out.glob("shards/0*"))) > before
    sweep(**settings(weights, out, images=24, shard_size=1))
    assert contents(out) == contents(reference)


def command_by_one_thread(arguments, log):
    torch.set_num_threads(1)
    with log.open("w") as sys.stderr:
        sys.exit(main(arguments))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_stop_leaves_whole_files_and_goes_on(weights, tmp_path, sent):
    command = f"sweep --model {weights} --methods random,rise --metrics pointing_game --images 12 --shard-size 1"
    command += " --option rise.masks=8 --option scenes.size=64 --device cpu --out"
    out, reference, log = tmp_path / "run", tmp_path / "reference", tmp_path / "log.txt"
    assert main([*command.split(), str(reference)]) == 0
    child = FORKS.Process(target=command_by_one_thread, args=([*command.split(), str(out)], log))
    child.start()
    while not list(out.glob("shards/0*")):
        time.sleep(0.001)
    os.kill(child.pid, sent)
    child.join()
    said = log.read_text()
    assert child.exitcode == 128 + sent and "stopped; the same command goes on" in said, said
    assert not (out / "table.parquet").exists() and not list(out.rglob(".*"))
    assert main([*command.split(), str(out)]) == 0
    assert contents(out) == contents(reference)


def test_a_signal_that_a_library_swallows_ends_the_sweep_after_the_image(weights, tmp_path):
    """numpy's `choice`, by which the scenes are drawn, catches whatever is raised while it looks at a list."""

    def swallowed_then_checked():
        with suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        check()

    with pytest.raises(SystemExit, match="143"), stopped_by_signals() as check:
        sweep(**settings(weights, tmp_path, shard_size=1), tick=swallowed_then_checked)
    assert not list(tmp_path.glob("shards/0*")) and not list(tmp_path.rglob(".*"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_only_missing_shards_are_made(whole, weights, tmp_path, monkeypatch):
    sweep(**settings(weights, tmp_path))
    (tmp_path / "shards" / "0000002-0000004.parquet").unlink()
    made, inner = [], runs.run_shard
    monkeypatch.setattr(runs, "run_shard", lambda plan, start, *rest: made.append(start) or inner(plan, start, *rest))
    sweep(**settings(weights, tmp_path))
    assert made == [2] and contents(tmp_path) == contents(whole[0])


def test_more_images_may_follow(whole, weights, tmp_path):
    sweep(**settings(weights, tmp_path, images=3))
    sweep(**settings(weights, tmp_path))
    assert contents(tmp_path) == contents(whole[0])
