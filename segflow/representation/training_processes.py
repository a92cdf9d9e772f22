"""Training the behaviour model in several processes of this machine: starting them, hearing them, and what if one is lost.

The log goes to them as files, of which each maps what it reads; the model comes back as a file that the first of them writes.
Nothing is retried here: whoever trains again goes on from the last checkpoint.

Lives here: the processes. Does not live here: what they do together (``process_group``, ``behavior_training``).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segflow.compute.processes import end_with_parent
from segflow.config import BehaviorConfig
from segflow.errors import UserError
from segflow.representation.behavior_training import Log
from segflow.representation.devices import find_device
from segflow.representation.process_group import Group, joined
from segflow.representation.sequences import EventSequences

_MODEL, _VECTORS = "model.safetensors", "item_vectors"
_START_SECONDS = 300.0
"""Within which all processes have imported what they need; a busy machine takes its time, whatever the patience."""

_SETTLE_SECONDS = 1.0
"""Within which the end of a process is known, after others have lost their connection to it."""


class LostProcessError(RuntimeError):
    """A training process ended or stopped answering; the same training may succeed another time."""


@dataclass(frozen=True)
class Processes:
    """How many processes train.

    Attributes:
        count: the number; the batch is shared out among them, so it is as large as with one.
        patience: seconds that they wait for one another at any one exchange.
        folder: where files pass between them; the system's own folder for temporary files by default.
    """

    count: int = 1
    patience: float = 30.0
    folder: str | None = None

    @property
    def threads(self) -> int:
        """Of each process, so that all together have what one would."""
        return max(1, torch.get_num_threads() // self.count)


@dataclass(frozen=True)
class Training:
    """What one process is told."""

    folder: Path
    event_types: tuple[str, ...]
    config: BehaviorConfig
    seed: int
    checkpoint: Path | None
    threads: int
    size: int
    patience: float


Fit = Callable[[EventSequences, npt.NDArray[np.float32], Training, Group, Log], bytes]
"""What each process does; a module-level function."""


def train(
    fit: Fit,
    sequences: EventSequences,
    item_vectors: npt.NDArray[np.float32],
    config: BehaviorConfig,
    seed: int,
    log: Log,
    checkpoint: Path | None,
    processes: Processes,
) -> bytes:
    """The bytes that ``fit`` gives in the first of the processes.

    Raises UserError if the training does or there are cards but fewer than processes, LostProcessError if a process ends
    without a word or does not answer the others within the patience, and RuntimeError for other errors of theirs. No process
    is left behind.
    """
    _require_cards(processes.count)
    if processes.folder is not None:
        Path(processes.folder).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="training-", dir=processes.folder) as name:
        folder = Path(name)
        for field in fields(sequences):
            if field.name != "event_types":
                np.save(folder / f"{field.name}.npy", getattr(sequences, field.name), allow_pickle=False)
        np.save(folder / f"{_VECTORS}.npy", item_vectors, allow_pickle=False)
        training = Training(
            folder,
            sequences.event_types,
            config,
            seed,
            checkpoint,
            processes.threads,
            processes.count,
            processes.patience,
        )
        _run(fit, training, log)
        return (folder / _MODEL).read_bytes()


def _require_cards(count: int) -> None:
    """Training on processors instead would be slower by far, and nobody would be told: so it is asked for."""
    cards = torch.cuda.device_count()
    if 0 < cards < count:
        raise UserError(
            f"compute.training_processes: {count} processes need a graphics card each, and this machine has {cards}; lower "
            f"it to {cards}, or hide the cards (CUDA_VISIBLE_DEVICES=-1) to train on processors"
        )


def _run(fit: Fit, training: Training, log: Log) -> None:
    """Start all processes and stay until all are done, or until the first is lost: then none goes on."""
    context = get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(training.size)]
    started = [
        context.Process(target=_work, args=(fit, training, rank, into), name=f"training-{rank}")
        for rank, (_, into) in enumerate(pipes)
    ]
    try:
        for process, (_, into) in zip(started, pipes, strict=True):
            process.start()
            into.close()
        _listen(started, [out for out, _ in pipes], log)
    finally:
        for process in started:
            if process.is_alive():
                process.kill()
        for process in started:
            if process.pid is not None:
                process.join()


def _listen(started: Sequence[BaseProcess], pipes: Sequence[Connection], log: Log) -> None:
    """Pass on what the processes say, until each has said that it is done. Raises what became of the first that is not."""
    waiting = dict(zip(pipes, range(len(pipes)), strict=True))
    while waiting:
        for pipe in connection.wait(list(waiting)):
            kind, content = _said(pipe)  # type: ignore[arg-type]
            if kind == "epoch":
                log(*content)
            elif kind == "done":
                del waiting[pipe]  # type: ignore[arg-type]
            else:
                raise _reason(started, waiting, waiting[pipe], kind, content)  # type: ignore[index]


def _said(pipe: Connection) -> tuple[str, Any]:
    try:
        return pipe.recv()
    except EOFError:
        return "lost", None


def _reason(
    started: Sequence[BaseProcess], waiting: Mapping[Connection, int], rank: int, kind: str, content: Any
) -> Exception:
    """The error to raise when process ``rank`` was the first to fail. If it only lost another one, that one's error."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    pipes = [pipe for pipe, number in waiting.items() if number != rank]
    while kind in ("lost", "broken") and time.monotonic() < deadline:
        for number, process in enumerate(started):
            if process.exitcode is not None and process.exitcode < 0:
                name = signal.Signals(-process.exitcode).name
                return LostProcessError(
                    f"behaviour model: training process {number + 1} of {len(started)} was ended by {name}, and the others with "
                    "it; train again, it goes on from the last epoch; if memory ran out, lower compute.training_processes"
                )
        for pipe in connection.wait(pipes, timeout=0.05):
            pipes.remove(pipe)  # type: ignore[arg-type]
            other, told = _said(pipe)  # type: ignore[arg-type]
            if other in ("mistake", "failed"):
                rank, kind, content = waiting[pipe], other, told  # type: ignore[index]
        if not pipes:
            time.sleep(0.05)
    which = f"behaviour model: training process {rank + 1} of {len(started)}"
    if kind == "mistake":
        return UserError(content)
    if kind == "failed":
        return RuntimeError(f"{which} failed: {content}")
    return LostProcessError(
        f"{which} lost the others, or waited for them in vain ({content or 'it ended without a word'}); train again, it goes "
        "on from the last epoch; if the machine is only slow, raise compute.patience"
    )


def _work(fit: Fit, training: Training, rank: int, pipe: Connection) -> None:
    """One process. It ends with the one that started it."""
    end_with_parent()
    if sys.platform == "linux":
        # All are on this machine: nobody else needs to reach them, whatever name the machine has.
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(training.threads)

    def log(epoch: int, metrics: dict[str, float]) -> None:
        if rank == 0:
            pipe.send(("epoch", (epoch, metrics)))

    with _told(pipe):
        _await_others(training.folder, rank, training.size)
        # An error is told before the others can notice that this process is gone.
        device = find_device(rank)
        with joined(rank, training.size, training.folder, training.patience, device) as group, _told(pipe):
            sequences, vectors = _read(training)
            found = fit(sequences, vectors, training, group, log)
            if group.leads:
                (training.folder / _MODEL).write_bytes(found)
            pipe.send(("done", None))


@contextmanager
def _told(pipe: Connection) -> Iterator[None]:
    """What is raised inside is told to the one who listens, and ends what is inside."""
    try:
        yield
    except UserError as error:
        pipe.send(("mistake", str(error)))
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        others = isinstance(error, torch.distributed.DistError) or "gloo" in text or "timed out" in text
        pipe.send(("broken" if others else "failed", text))


def _await_others(folder: Path, rank: int, size: int) -> None:
    (folder / f"ready-{rank}").touch()
    deadline = time.monotonic() + _START_SECONDS
    while missing := [other for other in range(size) if not (folder / f"ready-{other}").exists()]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out: process {missing[0] + 1} has not started within {_START_SECONDS:.0f} s")
        time.sleep(0.02)


def _read(training: Training) -> tuple[EventSequences, npt.NDArray[np.float32]]:
    """The log, mapped: what is not read is not in memory, and what several processes read is there once."""

    def mapped(name: str) -> npt.NDArray[Any]:
        return np.load(training.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)

    arrays = {field.name: mapped(field.name) for field in fields(EventSequences) if field.name != "event_types"}
    return EventSequences(**arrays, event_types=training.event_types), mapped(_VECTORS)
