"""What several processes of one training agree on after a step. Knows torch's process group, nothing of trainings."""

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def agreed(mine: T, order: Sequence[T]) -> T:
    """Of what all processes have, the last in `order`; every one of them gets the same."""
    import torch

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    place = torch.tensor(order.index(mine), device=device)
    torch.distributed.all_reduce(place, torch.distributed.ReduceOp.MAX)
    return order[int(place)]


def all_here() -> None:
    """Wait for all processes."""
    import torch

    torch.distributed.barrier()


def all_on_one_cpu(trainer: Any) -> None:
    """Call the CPU by its name: torch restores no checkpoint onto "cpu:1", as accelerate calls the second process's."""
    import torch

    if trainer.args.device.type == "cpu":
        trainer.args.__dict__["_setup_devices"] = torch.device("cpu")
