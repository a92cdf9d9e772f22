"""A stand-in for a graphics card: a device of its own to torch, of which the processor does the work.

As with a card's, its tensors do not meet those of the CPU and become no numpy arrays; what is computed has the bits of the CPU.
torch's fake tensors, which need no card either, hold no numbers, and cannot be indexed where torch was built without CUDA.

A device is for a whole process, from before its first backward pass on: tests on it need a process of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "stand_in"
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class StandIn(TorchDispatchMode):
    """Inside it, there is the device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def make_device() -> torch.device:
    """The device, which is there inside ``StandIn``."""
    _setup_privateuseone_for_python_backend(NAME, _Backend())
    # What is made of Python's numbers comes from the CPU, or torch would look for the memory of the device.
    torch._C._set_only_lift_cpu_tensors(True)
    return torch.device(NAME, 0)


class _Backend(_DummyBackendModule):
    """What torch and segflow ask of a kind of device; random numbers are those of the processor."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: torch.device) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: torch.device) -> None:
        torch.set_rng_state(state)


class _There(Tensor):
    """A tensor on the stand-in; ``inner`` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _There:
        # In inference too torch expects a view of a plain tensor to be plain.
        with torch.inference_mode(False):
            made: _There = Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=torch.device(NAME, 0),
            )
        made.inner = inner
        return made

    def tolist(self) -> list[Any]:
        found: list[Any] = self.cpu().tolist()
        return found

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``function`` gives on the CPU, put where it belongs."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), torch._C.DispatchKey.CompositeImplicitAutograd):
        # In inference these come whole.
        with StandIn():
            return function.decompose(*args, **kwargs)
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = {id(one.inner): one for one in given if isinstance(one, _There)}
    # As on a card, a single number may come from the CPU.
    if there and function not in _COPIES and any(one.dim() and not isinstance(one, _There) for one in given):
        raise RuntimeError(f"{function}: some tensors are on the CPU and others on {NAME}")
    wanted = there if kwargs.get("device") is None else torch.device(kwargs["device"]).type == NAME
    if "device" in kwargs:
        kwargs = kwargs | {"device": torch.device("cpu")}
    found = function(*tree_map(_inner, args), **tree_map(_inner, kwargs))

    def put(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        # What is changed in place stays the tensor that it was.
        return there[id(one)] if id(one) in there else _There(one) if wanted else one

    return tree_map(put, found)


def _inner(one: Any) -> Any:
    return one.inner if isinstance(one, _There) else one
