"""Worker processes that train several runs each, so that imports are done once per process."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from kdx.evidence.planned_run import PlannedRun
from kdx.run.masking import mask

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Train = Callable[[PlannedRun], None]


@dataclass
class Worker:
    """A process, the pipe to it, and its current run."""

    process: BaseProcess
    pipe: Connection
    run: PlannedRun | None = None


def train(run: PlannedRun) -> None:
    """Train a run in this process, with one thread."""
    import torch

    from kdx.experiment import build
    from kdx.experiment.train import train as train_run
    from kdx.run.folder import RunFolder

    torch.set_num_threads(1)
    train_run(build.parts(run.config), RunFolder(run.folder, overrides=run.overrides), quiet=True)


def work(runs: Sequence[PlannedRun], jobs: int, log: Path, task: Train = train) -> Iterator[tuple[PlannedRun, str]]:
    """Execute the runs in `jobs` processes and yield (run, error) when a run ends; the error is "" if it succeeded.

    A failed run or a crashed process does not stop the other runs. The output of the processes is written to
    `log`/worker-N.log. Closing the iterator early ends the processes.
    """
    waiting, workers = deque(runs), []
    try:
        for number in range(min(jobs, len(runs))):
            workers.append(_start(log / f"worker-{number}.log", task))
            _next(workers[-1], waiting)
        while any(worker.run for worker in workers):
            ready = wait([worker.pipe for worker in workers if worker.run])
            for number, worker in enumerate(workers):
                if worker.pipe not in ready or worker.run is None:
                    continue
                run, worker.run = worker.run, None
                try:
                    error = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    error = f"its process ended with exit code {worker.process.exitcode}: check the available memory"
                    worker = workers[number] = _start(log / f"worker-{number}.log", task)
                _next(worker, waiting)
                yield run, error
    finally:
        for worker in workers:
            if worker.run is None:
                with contextlib.suppress(OSError):
                    worker.pipe.send(None)
            else:
                worker.process.kill()
        for worker in workers:
            worker.process.join()


def _next(worker: Worker, waiting: deque[PlannedRun]) -> None:
    if waiting:
        worker.run = waiting.popleft()
        worker.pipe.send(worker.run)


def _start(log: Path, task: Train) -> Worker:
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read when the process imports NumPy and torch
    try:
        process = context.Process(target=_loop, args=(child_end, log, task), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    child_end.close()
    return Worker(process, parent_end)


def _loop(pipe: Connection, log: Path, task: Train) -> None:
    """The main function of a process: train each run received through the pipe, and send back its error or ""."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with contextlib.suppress(EOFError, OSError):  # the parent has exited
        while (run := pipe.recv()) is not None:
            print(f"{run.text}: {run.folder}", flush=True)
            pipe.send(_attempt(run, task))


def _attempt(run: PlannedRun, task: Train) -> str:
    try:
        task(run)  # a run that was cut off goes on
    except Exception as error:
        print(mask(traceback.format_exc()), file=sys.stderr, flush=True)
        return mask(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
    return "" if run.finished else "it ended without metrics.json: check the log of the worker"
