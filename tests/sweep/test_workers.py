"""Sweeps in processes and on Dask workers: the same files, though workers and schedulers are killed."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time

import dask
import distributed
import pytest
import torch

from clip_explain.errors import WeightsError, WorkerError
from clip_explain.sweep import shard, workers
from clip_explain.sweep.run import sweep
from small_sweeps import FORKS, contents, plan_of, settings


@pytest.mark.parametrize("start", ["forkserver", "fork", "spawn"])
def test_local_processes_make_the_same_files(whole, weights, tmp_path, monkeypatch, start):
    """However a process begins; the default is "spawn", which is the slowest, and safe beside CUDA."""
    monkeypatch.setattr(workers, "START", start)
    sweep(**settings(weights, tmp_path, processes=2))
    assert contents(tmp_path) == contents(whole[0])


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ([1, -15], 'a process ended as it began.*under `if __name__ == "__main__":`'),
        ([-15, -9], "a process was killed by SIGKILL, perhaps for want of memory. Finished shards are kept: run again"),
        ([0, -11], "a process was killed by SIGSEGV"),
    ],
)
def test_what_broke_a_pool_is_read_off_the_exit_codes(exits, message):
    assert re.match(message, workers._why_broken(exits))


def test_a_script_without_a_main_guard_is_told_so(weights, tmp_path):
    given = settings(weights, tmp_path / "run", processes=2)
    script = tmp_path / "script.py"
    script.write_text(f"from clip_explain.sweep.run import sweep\nsweep(**{given!r})\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("clip_explain.errors.WorkerError: ")]
    assert done.returncode == 1 and len(said) == 1, done.stderr
    assert 'must call sweep(processes=...) under `if __name__ == "__main__":`' in said[0]


def sweep_and_say(pipe, given):
    try:
        pipe.send(len(sweep(**given)))
    except WorkerError as error:
        pipe.send(str(error))


def test_a_daemonic_process_cannot_start_others(weights, tmp_path):
    here, there = FORKS.Pipe()
    given = settings(weights, tmp_path, processes=2)
    child = FORKS.Process(target=sweep_and_say, args=(there, given), daemon=True)
    child.start()
    assert here.recv().startswith("a daemonic process cannot start others")
    child.join()


def test_a_killed_process_is_told_from_one_that_cannot_begin(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "START", "forkserver")
    killer = kill_after(tmp_path, KilledChild())
    with pytest.raises(WorkerError, match="a process was killed by SIGKILL"):
        sweep(**settings(weights, tmp_path, images=40, shard_size=1, processes=2))
    killer.join()


class KilledChild:
    """The first process of the pool that has been started by then."""

    def kill(self):
        multiprocessing.active_children()[0].kill()

    def join(self):
        pass


def run_scheduler(pipe, security):
    async def serve():
        scheduler = distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False, security=security)
        async with scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def run_worker(address, folder, environment, security):
    async def serve():
        async with distributed.Worker(
            address, nthreads=1, host="127.0.0.1", dashboard=False, local_directory=folder, security=security
        ) as worker:
            await worker.finished()

    os.environ |= environment
    torch.set_num_threads(1)
    asyncio.run(serve())


@contextlib.contextmanager
def cluster(folder, *environments, security=None):
    """A scheduler's address, and it and the workers, all of them processes of their own that talk over TCP."""
    here, there = FORKS.Pipe()
    processes = [FORKS.Process(target=run_scheduler, args=(there, security))]
    processes[0].start()
    address = here.recv()
    for each in environments:
        processes.append(FORKS.Process(target=run_worker, args=(address, str(folder), each, security)))
        processes[-1].start()
    try:
        yield address, processes
    finally:
        for process in processes[::-1]:
            process.kill()
            process.join()


def kill_after(out, *victims):
    """Kill a process whenever one more shard is there; the thread that does it."""

    def kill():
        for count, victim in enumerate(victims, 1):
            while len(list(out.glob("shards/0*"))) < count:
                time.sleep(0.001)
            victim.kill()
            victim.join()

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


def test_dask_workers_make_the_same_files_though_two_of_three_are_killed(weights, tmp_path):
    out, more = tmp_path / "run", dict(images=8, shard_size=1)
    sweep(**settings(weights, tmp_path / "whole", **more))
    with cluster(tmp_path, {}, {}, {}) as (address, (_, *workers)):
        killer = kill_after(out, *workers[:2])
        sweep(**settings(weights, out, scheduler=address, **more))
        killer.join()
    assert [worker.exitcode for worker in workers] == [-9] * 3
    assert contents(out) == contents(tmp_path / "whole")


def test_a_shard_on_cuda_takes_the_gpu_of_a_worker(whole, weights, tmp_path):
    plan = plan_of(whole[0], weights, device="cuda")
    with cluster(tmp_path, {}) as (address, _), distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        with pytest.raises(WorkerError, match="none of the 1 workers offers a GPU"):
            workers._resources(plan, client)


def test_a_sweep_whose_scheduler_is_killed_goes_on_with_the_next(weights, tmp_path):
    out, more = tmp_path / "run", dict(images=8, shard_size=1)
    sweep(**settings(weights, tmp_path / "whole", **more))
    with cluster(tmp_path, {}) as (address, (scheduler, _)):
        killer = kill_after(out, scheduler)
        with pytest.raises(WorkerError, match="the cluster lost the sweep.*Finished shards are kept: run again"):
            sweep(**settings(weights, out, scheduler=address, **more))
        killer.join()
    assert 1 <= len(list(out.glob("shards/0*"))) < 8
    with cluster(tmp_path, {}) as (address, _):
        sweep(**settings(weights, out, scheduler=address, **more))
    assert contents(out) == contents(tmp_path / "whole")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority made by openssl, a certificate that it signed, and another authority that signed nothing."""
    folder = tmp_path_factory.mktemp("certificates")
    new = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN="
    commands = [f"{new}ca -keyout ca.key -out ca.pem", f"{new}other -keyout other.key -out other.pem"]
    commands += [
        "openssl req -newkey rsa:2048 -nodes -subj /CN=node -keyout node.key -out node.csr",
        "openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out node.pem",
    ]
    for command in commands:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def tls(folder, authority="ca.pem"):
    """Dask's configuration, which may also stand in the environment: DASK_DISTRIBUTED__COMM__TLS__CA_FILE=..."""
    files = {"ca-file": authority}
    for role in ("scheduler", "worker", "client"):
        files |= {f"{role}.cert": "node.pem", f"{role}.key": "node.key"}
    return dask.config.set({f"distributed.comm.tls.{key}": str(folder / name) for key, name in files.items()})


def test_a_sweep_over_tls(whole, weights, tmp_path, certificates):
    """The address is tls://..., and the certificates are those of Dask's configuration."""
    with tls(certificates):
        security = distributed.Security(require_encryption=True)
        with cluster(tmp_path, {}, security=security) as (address, _):
            assert address.startswith("tls://")
            sweep(**settings(weights, tmp_path / "run", scheduler=address))
    assert contents(tmp_path / "run") == contents(whole[0])


@pytest.mark.parametrize(("scheme", "authority"), [("tls", None), ("tls", "other.pem"), ("tcp", None)])
def test_a_sweep_that_the_scheduler_does_not_trust(weights, tmp_path, certificates, monkeypatch, scheme, authority):
    monkeypatch.setattr(workers, "SECONDS", 2)
    with tls(certificates):
        security = distributed.Security(require_encryption=True)
    with cluster(tmp_path, security=security) as (address, _):
        own = tls(certificates, authority) if authority else contextlib.nullcontext()
        with own, pytest.raises(WorkerError, match="no Dask scheduler answers at"):
            sweep(**settings(weights, tmp_path / "run", scheduler=address.replace("tls", scheme)))


def test_a_worker_without_the_model_is_named(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        cluster(tmp_path, {"CLIP_EXPLAIN_DATA": str(empty)}) as (address, _),
        pytest.raises(ValueError, match=f"worker on .* cannot load the model: .*'tiny-vit' is not at {empty}"),
    ):
        sweep(**settings("tiny-vit", tmp_path / "run", scheduler=address, methods=["random"], options={}))


def test_a_worker_with_another_model_is_refused(whole, weights):
    plan = plan_of(whole[0], weights, sha256="0")
    with pytest.raises(WeightsError, match="has another .* the sweep's is 0"):
        shard._session(json.dumps(vars(plan)))


def test_a_scheduler_that_does_not_answer_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS", 1)
    with pytest.raises(WorkerError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        sweep(**settings(weights, tmp_path, scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(WorkerError, match="no Dask scheduler answers at nonsense:"):
        sweep(**settings(weights, tmp_path, scheduler="nonsense://x"))
