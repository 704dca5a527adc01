"""Engines: ways to compute the network, all giving the same scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from urbandelta.engines.base import Engine, Session
from urbandelta.errors import EngineError

__all__ = ["ENGINES", "PRECISIONS", "Engine", "Session", "engine_named"]

PRECISIONS = ("fp32", "bf16")


def _native(precision: str) -> Engine:
    from urbandelta.engines.native import NativeEngine

    return NativeEngine(precision=precision)


def _openvino(precision: str) -> Engine:
    from urbandelta.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(precision=precision)


def _torch(precision: str) -> Engine:
    try:
        from urbandelta.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise EngineError("engine torch: torch is not installed; pip install 'urbandelta[train]'") from error
    return TorchEngine(precision=precision)


ENGINES: Mapping[str, Callable[[str], Engine]] = MappingProxyType(
    {"native": _native, "openvino": _openvino, "torch": _torch}
)
"""Engines by name; each is imported when it is first asked for."""
DEFAULT_ENGINE = "native"


def engine_named(name: str, *, precision: str = "fp32") -> Engine:
    """An engine by name; "auto" is the fastest that is always there.

    Raises
    ------
    EngineError
        If the engine or precision is unknown, or the engine's library is not installed.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    chosen = DEFAULT_ENGINE if name == "auto" else name
    if chosen not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; expected auto or one of {', '.join(ENGINES)}")
    return ENGINES[chosen](precision)
