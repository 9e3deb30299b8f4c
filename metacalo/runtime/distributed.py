"""The processes of one run, as torchrun starts them: who computes which share, and how gradients become one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from metacalo.errors import MetacaloError, RankError

__all__ = ["Ranks", "joined_ranks"]

_PATIENCE = timedelta(hours=2)  # the first process may fit or write while the others wait
_GRACE = 3.0  # seconds


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run; by default it is alone, and all that they do together is nothing.

    Every process draws the same numbers and keeps the same weights. It computes its share of a step; shares of
    gradients are added up, so that the step is that of one process but for rounding.

    Attributes:
        rank: of this process, from 0.
        world: number of processes.
        local: rank among the processes of this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and shows bars."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: of several GPUs each process has its own."""
        return f"cuda:{self.local}" if name == "cuda" and self.world > 1 else name

    def share(self, n: int) -> range:
        """Which of `n` pieces of work are this process's: neighbours, as many as the others have or one more or less.

        Example:
            >>> [list(Ranks(rank, world=3).share(4)) for rank in range(3)]
            [[0], [1], [2, 3]]
        """
        return range(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    def wait(self) -> None:
        """Until all processes are here.

        Raises:
            RankError: another one has ended.
        """
        if self.world > 1:
            with _together():
                distributed.barrier()

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Gives floating-point tensors of all processes, in place, the values that the first one has."""
        if self.world == 1:
            return
        with _together(), torch.no_grad():
            for tensor in filter(torch.is_floating_point, tensors):
                distributed.broadcast(tensor, src=0)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of values over all processes."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        with _together():
            distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def gather(self, rows: Tensor) -> tuple[Tensor, slice]:
        """The rows of all processes in their order, and which are this one's: gradients flow to those alone."""
        if self.world == 1:
            return rows, slice(None)
        with _together():
            sizes = torch.zeros(self.world, dtype=torch.long, device=rows.device)
            sizes[self.rank] = len(rows)
            distributed.all_reduce(sizes)
            most = int(sizes.max())
            padded = rows.new_zeros(most, *rows.shape[1:])
            padded[: len(rows)] = rows.detach()
            found = [torch.empty_like(padded) for _ in range(self.world)]
            distributed.all_gather(found, padded)
        parts = [part[:size] for part, size in zip(found, sizes.tolist(), strict=True)]
        parts[self.rank] = rows
        start = sum(map(len, parts[: self.rank]))
        return torch.cat(parts), slice(start, start + len(rows))

    def add_up(self, parameters: Mapping[str, nn.Parameter], loss: Tensor) -> Tensor:
        """Adds up the shares of the gradients, in place, and returns the sum of those of the loss.

        A parameter that no process has a gradient of is left without one.

        Raises:
            RankError: another process has ended.
        """
        if self.world == 1:
            return loss
        values = list(parameters.values())
        known = torch.tensor([value.grad is not None for value in values], dtype=loss.dtype, device=loss.device)
        shares = [value if value.grad is None else value.grad for value in values]
        flat = torch.cat([loss.detach().reshape(1), known, *(share.detach().reshape(-1) for share in shares)])
        sizes = [share.numel() for share in shares]
        own = torch.split(flat[1 + len(values) :], sizes)
        for value, part in zip(values, own, strict=True):
            if value.grad is None:
                part.zero_()
        with _together():
            distributed.all_reduce(flat)
        anyone = flat[1 : 1 + len(values)].tolist()
        for value, part, holders in zip(values, own, anyone, strict=True):
            value.grad = part.reshape(value.shape).clone() if holders else None
        return flat[0]


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The processes that torchrun has started, joined; this one alone where it has not.

    An error that several processes meet is reported by the one that meets it first.

    Raises:
        RankError: the error of a process that is not the first, or one that another process reports.
    """
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Ranks()
        return
    from torch.distributed.rendezvous import rendezvous  # some builds of torch have none

    ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    store = next(rendezvous("env://"))[0]
    distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world, timeout=_PATIENCE)
    try:
        yield ranks
    except MetacaloError as error:
        reported = _is_reported(store)
        if ranks.first and not reported:
            raise
        if reported:
            time.sleep(
                _GRACE
            )  # torchrun ends the others when the first of them ends: let that be the one that reports it
        raise RankError(f"process {ranks.rank} of {ranks.world}: {error}", reported=reported) from error
    finally:
        distributed.destroy_process_group()


def _is_reported(store: Any) -> bool:
    """Whether another process has asked this before, or has ended with the store."""
    try:
        return int(store.add("metacalo/errors", 1)) > 1
    except RuntimeError:
        return True


@contextmanager
def _together() -> Iterator[None]:
    """A process that waits for another that has ended says so."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise RankError(f"another process of this run has ended, and this one with it ({reason})") from error
