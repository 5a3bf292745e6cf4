"""Where the shards of a sweep are made, if not here: in local processes, or on the workers of a Dask scheduler.

Above shard.py, below run.py.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm import tqdm

from clip_explain.checks import import_extra
from clip_explain.errors import WorkerError
from clip_explain.sweep.plan import Plan
from clip_explain.sweep.shard import run_shard

START = "spawn"  # how a process begins: clean, and safe beside CUDA
SECONDS = 5  # the time that a scheduler has to answer


def in_processes(plan: Plan, todo: Sequence[int], processes: int, bar: tqdm) -> None:
    """Shards in new local processes; WorkerError if they cannot be started, or if one of them is killed."""
    if multiprocessing.current_process().daemon:
        raise WorkerError("a daemonic process cannot start others: call sweep(processes=...) from the main process")
    context = multiprocessing.get_context(START)
    pool = ProcessPoolExecutor(min(processes, len(todo)) or 1, context, _begin_process)
    try:
        for future in as_completed([pool.submit(run_shard, plan, start) for start in todo]):
            bar.update(future.result())
    except BrokenProcessPool as error:
        ended = _processes(pool)
        pool.shutdown()  # waits for them: before that some have no exit code yet
        raise WorkerError(_why_broken([process.exitcode or 0 for process in ended])) from error
    except BaseException:
        for process in _processes(pool):  # unfinished shards are worth nothing: do not wait
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _processes(pool: ProcessPoolExecutor) -> list[Any]:
    return list((pool._processes or {}).values())


def _why_broken(exits: Sequence[int]) -> str:
    """The reason for a broken pool, from exit codes: an error ends a process only before its work begins."""
    if any(code > 0 for code in exits):
        return (
            "a process ended as it began, by the error above. It imports the script that called sweep: a script must "
            'call sweep(processes=...) under `if __name__ == "__main__":`, and be a file. Else use processes=1.'
        )
    signals = [-code for code in exits if code < 0]
    killed = f" by {signal.Signals(min(signals)).name}" if signals else ""  # the pool ends the others by SIGTERM, 15
    return (
        f"a process was killed{killed}, perhaps for want of memory. Finished shards are kept: run again, with fewer "
        "processes if need be."
    )


def _begin_process() -> None:
    """Set up a process: one thread, Ctrl-C left to the parent, and an end when the parent ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def on_cluster(plan: Plan, todo: Sequence[int], scheduler: Any, bar: tqdm) -> None:
    """Make shards on Dask workers; other workers repeat the shards of lost ones."""
    distributed = import_extra("distributed", "cluster", "a cluster", WorkerError)
    client = _connect(distributed, scheduler) if isinstance(scheduler, str) else scheduler
    futures = []
    try:
        resources = _resources(plan, client)
        futures = [client.submit(run_shard, plan, start, pure=False, resources=resources) for start in todo]
        with client.as_current():
            for future in distributed.as_completed(futures):
                bar.update(future.result())
                bar.set_postfix(workers=len(client.nthreads()), refresh=False)
    except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise WorkerError(f"the cluster lost the sweep ({reason}). Finished shards are kept: run again.") from error
    finally:
        client.cancel(futures)
        if client is not scheduler:
            client.close()


def _connect(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # no answer, a malformed address, or TLS without certificates
        raise WorkerError(f"no Dask scheduler answers at {address}: {error}") from error


def _resources(plan: Plan, client: Any) -> dict[str, int] | None:
    """On cuda each shard takes one of a worker's GPUs, so that no two shards share a GPU."""
    if not plan.device.startswith("cuda"):
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if workers and not any("GPU" in worker.get("resources", {}) for worker in workers):
        raise WorkerError(f'none of the {len(workers)} workers offers a GPU: start them with --resources "GPU=1"')
    return {"GPU": 1}
