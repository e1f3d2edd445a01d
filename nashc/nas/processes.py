"""Several processes that train one network, as torchrun starts them: torchrun --nproc-per-node 4 -m nashc train ...

Each takes its part of every batch, and the gradients are averaged; the first one alone writes files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def together(environment: Mapping[str, str]) -> Iterator[None]:
    """Join the group that torchrun describes in these variables; nothing where it did not start this process."""
    if int(environment.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """(this process's number, how many there are)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
