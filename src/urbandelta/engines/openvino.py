"""The network on OpenVINO: oneDNN's convolutions, bf16 in the recurrence on processors that have it."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from urbandelta.engines.base import Session
from urbandelta.errors import EngineError
from urbandelta.network import GATES, Conv, FoldedNetwork, Path, PathParameters
from urbandelta.types import FloatArray

_SAME = ([1, 1], [1, 1], [1, 1], [1, 1])
"""Strides, paddings and dilations of a 3x3 convolution that keeps the size."""
_POINT = ([1, 1], [0, 0], [0, 0], [1, 1])


def _convolution(maps: Any, conv: Conv) -> Any:
    geometry = _POINT if conv.weight.shape[2] == 1 else _SAME
    bias = op.constant(conv.bias.reshape(1, -1, 1, 1))
    return op.add(op.convolution(maps, op.constant(conv.weight), *geometry), bias)


def _image(channels: int, height: int, width: int, batch: int) -> Any:
    return op.parameter([batch, channels, height, width], np.float32)


def _encoder(path: PathParameters, bands: int, height: int, width: int) -> ov.Model:
    frame = maps = _image(bands, height, width, 1)
    for block in path.blocks:
        maps = op.relu(_convolution(maps, block))
    return ov.Model([op.result(_convolution(maps, path.input))], [frame])


def _recurrence(path: PathParameters, height: int, width: int, batch: int) -> ov.Model:
    filters = path.filters
    hidden, cell = _image(filters, height, width, batch), _image(filters, height, width, batch)
    gates = _image(GATES * filters, height, width, 1)
    z = op.add(op.convolution(hidden, op.constant(path.recurrent), *_SAME), gates)
    i, f, c, o = op.split(z, 1, GATES).outputs()
    kept = op.multiply(op.clamp(f, 0.0, 1.0), cell)
    new_cell = op.add(kept, op.multiply(op.clamp(i, 0.0, 1.0), op.tanh(c)))
    new_hidden = op.multiply(op.clamp(o, 0.0, 1.0), op.tanh(new_cell))
    return ov.Model([op.result(new_hidden), op.result(new_cell)], [hidden, cell, gates])


def _head(network: FoldedNetwork, height: int, width: int) -> ov.Model:
    merged = maps = _image(sum(path.filters for path in network.paths.values()), height, width, 1)
    for conv in network.head:
        maps = op.relu(_convolution(maps, conv))
    return ov.Model([op.result(op.sigmoid(_convolution(maps, network.output)))], [merged])


@cache
def _core() -> ov.Core:
    return ov.Core()


def _compile(model: ov.Model, *, precision: str) -> ov.CompiledModel:
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    # One thread a request: blocks are shared out among threads of ours, each with sessions of its own.
    return _core().compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    )


class _Models:
    """Compiled models for one network and image size, shared by all sessions; compiling takes longer than a step."""

    def __init__(self, network: FoldedNetwork, height: int, width: int, precision: str) -> None:
        self._network, self._size, self._precision = network, (height, width), precision
        self._lock = threading.Lock()
        self._steps: dict[tuple[Path, int], ov.CompiledModel] = {}
        self.encoders = {
            p: _compile(_encoder(path, network.config.path_bands(p), height, width), precision="fp32")
            for p, path in network.paths.items()
        }
        self.head = _compile(_head(network, height, width), precision="fp32")

    def step(self, path: Path, batch: int) -> ov.CompiledModel:
        """The recurrence of a path for `batch` windows."""
        with self._lock:
            if (path, batch) not in self._steps:
                model = _recurrence(self._network.paths[path], *self._size, batch)
                self._steps[path, batch] = _compile(model, precision=self._precision)
            return self._steps[path, batch]


class OpenVinoSession:
    """`Session` on infer requests of fixed shape; the recurrence has one for each number of windows it meets."""

    def __init__(self, network: FoldedNetwork, models: _Models, *, height: int, width: int, slots: int) -> None:
        self._paths = network.paths
        self._models = models
        self._encoders = {p: model.create_infer_request() for p, model in models.encoders.items()}
        self._head = models.head.create_infer_request()
        self._steps: dict[tuple[Path, int], ov.InferRequest] = {}
        shapes = {p: (slots, path.filters, height, width) for p, path in network.paths.items()}
        self._hidden = {p: np.zeros(shape, np.float32) for p, shape in shapes.items()}
        self._cell = {p: np.zeros(shape, np.float32) for p, shape in shapes.items()}

    def encode(self, path: Path, frame: FloatArray) -> FloatArray:
        """Gates (1, 4 filter, y, x)."""
        request = self._encoders[path]
        request.infer([np.ascontiguousarray(frame.transpose(2, 0, 1)[None])])
        gates: FloatArray = request.get_output_tensor().data.copy()
        return gates

    def clear(self, slot: int) -> None:
        """Start a new window in a slot."""
        for path in self._paths:
            self._hidden[path][slot] = 0
            self._cell[path][slot] = 0

    def advance(self, path: Path, gates: FloatArray, first: int, last: int) -> None:
        """One step for the windows in slots `first` to `last` - 1."""
        request = self._steps.get((path, last - first))
        if request is None:
            request = self._models.step(path, last - first).create_infer_request()
            self._steps[path, last - first] = request
        hidden, cell = self._hidden[path][first:last], self._cell[path][first:last]
        request.infer([hidden, cell, gates], share_inputs=True)
        hidden[:] = request.get_output_tensor(0).data
        cell[:] = request.get_output_tensor(1).data

    def score(self, slot: int) -> FloatArray:
        """Score (y, x) of the window in a slot."""
        merged = np.concatenate([hidden[slot] for hidden in self._hidden.values()])[None]
        self._head.infer([merged])
        score: FloatArray = self._head.get_output_tensor().data[0, 0].copy()
        return score


class OpenVinoEngine:
    """OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, *, precision: str = "fp32") -> None:
        if precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError(
                "engine openvino: this processor has no bf16 instructions; use --precision fp32, or --engine native"
            )
        self.precision = precision
        self._lock = threading.Lock()
        self._models: dict[tuple[int, int, int], _Models] = {}
        self._networks: list[FoldedNetwork] = []

    def session(self, network: FoldedNetwork, *, height: int, width: int, slots: int) -> Session:
        """A session on images of `height` x `width` px."""
        with self._lock:
            key = (id(network), height, width)
            if key not in self._models:
                self._models[key] = _Models(network, height, width, self.precision)
                self._networks.append(network)  # kept alive, so that its id stays its own
            models = self._models[key]
        return OpenVinoSession(network, models, height=height, width=width, slots=slots)
