"""Tensors whose values are not in memory, as while torch records a program."""

from __future__ import annotations

from typing import Any

_REMEDY = (
    "compiled functions see values alone: to apply a map there, use torch_module() of the "
    "calibrator or its map; call everything else outside"
)


def refuse_traced(tensor: Any, name: str) -> None:
    """Raise TypeError for a torch tensor that has no values, or whose values would be recorded.

    Under `torch.compile` the graph ends before the call, which then sees the values; with
    ``fullgraph`` torch raises an error.
    """
    place = _place_of(tensor)
    if place is not None:
        raise TypeError(f"{name} is {place}: {_REMEDY}")


def refuse_proxy(kind: type) -> None:
    """Raise TypeError for the type of what `torch.fx` passes instead of tensors."""
    if kind.__module__ == "torch.fx.proxy":
        raise TypeError(f"an argument is a {kind.__name__} of torch.fx: {_REMEDY}")


def _place_of(tensor: Any) -> str | None:
    import torch

    if not hasattr(torch, "compiler"):
        return None  # a version before 2.1, which has not what is asked for here
    if torch.compiler.is_dynamo_compiling():
        torch._dynamo.graph_break(msg=_REMEDY)
        return None  # what comes after is compiled, too, and has values
    # Older versions tell no export from other compiling; what is exported is fake there, too.
    if getattr(torch.compiler, "is_exporting", bool)():
        return "inside torch.export, where arrays have no values"
    if torch.jit.is_tracing():
        return "inside torch.jit.trace, which would keep the result as a constant"
    if any(base.__name__ in ("FakeTensor", "FunctionalTensor") for base in type(tensor).__mro__):
        return f"a {type(tensor).__name__}, which has no values"
    if torch._is_functional_tensor(tensor) or _functorch(tensor):
        return "inside a transform of torch.func, where a tensor has no memory of its own"
    if tensor.device.type == "meta":
        return "on the device meta, where arrays have no values"
    if _recorded():
        return "inside a program that torch records"
    return None


def _functorch(tensor: Any) -> bool:
    import torch

    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _recorded() -> bool:
    import torch

    keys = torch._C._TorchDispatchModeKey
    modes = (keys.FAKE, keys.PROXY, keys.FUNCTIONAL)
    return any(torch._C._get_dispatch_mode(mode) is not None for mode in modes)
