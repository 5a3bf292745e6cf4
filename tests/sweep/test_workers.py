"""Sweeps in processes and on Dask workers: the same files, though workers and schedulers are killed."""

import asyncio
import contextlib
import json
import os
import threading
import time

import distributed
import pytest
import torch

from clip_explain.errors import WeightsError, WorkerError
from clip_explain.sweep import shard, workers
from clip_explain.sweep.plan import Plan
from clip_explain.sweep.run import sweep
from small_sweeps import FORKS, contents, settings


def test_local_processes_make_the_same_files(whole, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "START", "forkserver")  # the default, "spawn", imports torch once for each process
    sweep(**settings(weights, tmp_path, processes=2))
    assert contents(tmp_path) == contents(whole[0])


def plan_of(out, model):
    """The fields of the plan of a finished sweep."""
    return json.loads((out / "settings.json").read_text()) | {"model": str(model), "images": 4, "out": str(out)}


def run_scheduler(pipe):
    async def serve():
        async with distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def run_worker(address, folder, environment):
    async def serve():
        async with distributed.Worker(
            address, nthreads=1, host="127.0.0.1", dashboard=False, local_directory=folder
        ) as worker:
            await worker.finished()

    os.environ |= environment
    torch.set_num_threads(1)
    asyncio.run(serve())


@contextlib.contextmanager
def cluster(folder, *environments):
    """A scheduler's address and worker processes, all of them processes of their own that talk over TCP."""
    here, there = FORKS.Pipe()
    processes = [FORKS.Process(target=run_scheduler, args=(there,))]
    processes[0].start()
    address = here.recv()
    workers = [FORKS.Process(target=run_worker, args=(address, str(folder), each)) for each in environments]
    for worker in workers:
        worker.start()
    try:
        yield address, workers
    finally:
        for process in [*workers, *processes]:
            process.kill()
            process.join()


def test_dask_workers_make_the_same_files_though_one_is_killed(whole, weights, tmp_path):
    out = tmp_path / "run"
    with cluster(tmp_path, {}, {}) as (address, processes):
        with distributed.Client(address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            plan = Plan(**plan_of(whole[0], weights) | {"device": "cuda"})
            with pytest.raises(WorkerError, match="none of the 2 workers offers a GPU"):
                workers._resources(plan, client)

        def kill_one():
            while not list(out.glob("shards/0*")):
                time.sleep(0.001)
            processes[0].kill()

        killer = threading.Thread(target=kill_one)
        killer.start()
        sweep(**settings(weights, out, scheduler=address))
        killer.join()
    assert processes[0].exitcode == -9
    assert contents(out) == contents(whole[0])


def test_a_worker_without_the_model_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        cluster(tmp_path, {"CLIP_EXPLAIN_DATA": str(empty)}) as (address, _),
        pytest.raises(ValueError, match=f"worker on .* cannot load the model: .*'tiny-vit' is not at {empty}"),
    ):
        sweep(**settings("tiny-vit", tmp_path / "run", scheduler=address, methods=["random"], options={}))


def test_a_worker_with_another_model_is_refused(whole, weights):
    plan = plan_of(whole[0], weights) | {"sha256": "0"}
    with pytest.raises(WeightsError, match="has another .* the sweep's is 0"):
        shard._session(json.dumps(plan))


def test_a_scheduler_that_does_not_answer_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 1)
    with pytest.raises(WorkerError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        sweep(**settings(weights, tmp_path, scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(WorkerError, match="no Dask scheduler answers at nonsense:"):
        sweep(**settings(weights, tmp_path, scheduler="nonsense://x"))
