"""One process or many: what `torchrun` started, and what its processes tell each other."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import ConfigError


@dataclass(frozen=True)
class Team:
    """The processes that train one generator together, and which of them this one is."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that saves, measures and prints."""
        return self.rank == 0

    def synchronised(self, network: nn.Module) -> nn.Module:
        """`network` with batch statistics over all processes; only GPUs can do that."""
        if self.world > 1 and self.device.type == "cuda":
            convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
            return convert(network)
        return network

    def wrapped(self, network: nn.Module) -> nn.Module:
        """`network` whose gradients are averaged over the processes in each backward pass."""
        if self.world == 1:
            return network
        # Broadcasting buffers in each forward would overwrite what the backward of an earlier
        # forward still needs: the discriminator has two before its backward.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        settings: dict[str, Any] = {name: False}
        if self.device.type == "cuda":
            settings["device_ids"] = [self.device.index]
        return DistributedDataParallel(network, **settings)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.world > 1:
            distributed.all_reduce(values)
            values = values / self.world
        return values

    def agreed(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.world == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(told, src=0)
        return told.item()


@contextmanager
def joined_team(device: torch.device) -> Iterator[Team]:
    """The team that `torchrun` announces in the environment; a team of one without it.

    Args:
        device: where to train; with several GPUs each process takes that of its local rank.

    Raises:
        ConfigError: more processes than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Team(0, 1, device)
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank + 1} on a machine with {torch.cuda.device_count()} GPUs",
                "at most one process for each GPU",
                f"use torchrun --nproc-per-node {torch.cuda.device_count()}",
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()


def end_process(world: int) -> None:
    """End this process at once and well, where it is one of several; else do nothing.

    A C++ thread of the process group may still be there when the interpreter takes itself apart,
    and then aborts a process whose work is done, which `torchrun` calls a failure. Seen with gloo
    and PyTorch 2.13, in about one of a hundred runs.

    Args:
        world: processes of the team.
    """
    if world > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
