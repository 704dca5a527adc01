"""`tf.train.Example` messages that hold serialised tensors, decoded without TensorFlow or protobuf.

Only what the published files use: a map of named features, each a list of one byte string, that string a `TensorProto`
with its numbers as raw bytes. Decoded tensors are views of the record: nothing is copied, and no number that a message
states makes memory be taken.

References
----------
.. [1] https://protobuf.dev/programming-guides/encoding/ (the wire format)
.. [2] tensorflow/core/example/feature.proto, tensorflow/core/framework/tensor.proto (field numbers)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from urbandelta.errors import SourceError
from urbandelta.types import Array

Content: TypeAlias = memoryview
_Field: TypeAlias = tuple[int, int | Content]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_FEATURES = 1000
_MOST_AXES = 8
_LONGEST_VARINT = 10

DTYPES: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        1: np.dtype("<f4"),
        2: np.dtype("<f8"),
        3: np.dtype("<i4"),
        4: np.dtype("u1"),
        5: np.dtype("<i2"),
        6: np.dtype("i1"),
        9: np.dtype("<i8"),
        10: np.dtype("?"),
        17: np.dtype("<u2"),
        19: np.dtype("<f2"),
        22: np.dtype("<u4"),
        23: np.dtype("<u8"),
    }
)
"""TensorFlow's numbers of types. Strings, complex and quantised numbers are not read."""


def decode_example(record: bytes | bytearray | memoryview, names: Collection[str] | None = None) -> dict[str, Array]:
    """Tensors of a record, by name of their feature.

    Parameters
    ----------
    record : bytes-like
        A serialised `Example`.
    names : collection of str, optional
        Features to decode, all of which must be there; by default all that the record has.

    Returns
    -------
    dict of ndarray
        Read-only views of the record.

    Raises
    ------
    SourceError
        If the record is no such message, or lacks a feature.
    """
    features = _features(memoryview(record).toreadonly())
    missing = [name for name in names or () if name not in features]
    if missing:
        raise SourceError(f"has no feature {', '.join(missing)}; it has {', '.join(sorted(features)[:20]) or 'none'}")
    tensors = {}
    for name in features if names is None else names:
        try:
            tensors[name] = decode_tensor(_only_bytes(features[name]))
        except SourceError as error:
            raise SourceError(f"feature {name} {error}") from error
    return tensors


def decode_tensor(content: bytes | bytearray | memoryview) -> Array:
    """The array of a serialised `TensorProto`, as a read-only view.

    Raises
    ------
    SourceError
        If it is no tensor, is of a type that is not read, or shape and bytes disagree.
    """
    number, raw = 0, memoryview(b"")
    shape: tuple[int, ...] = ()
    for field, value in _fields(memoryview(content).toreadonly()):
        if field == 1 and isinstance(value, int):
            number = value
        elif field == 2 and isinstance(value, memoryview):
            shape = _shape(value)
        elif field == 4 and isinstance(value, memoryview):
            raw = value
        elif field > 4:
            raise SourceError("is a tensor of listed numbers; only raw bytes (tf.io.serialize_tensor) are read")
    dtype = DTYPES.get(number)
    if dtype is None:
        raise SourceError(f"is a tensor of TensorFlow's type {number}, which is not read; numbers and booleans are")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise SourceError(f"is a tensor of shape {shape} and type {dtype}, but has {len(raw):,} bytes")
    return np.frombuffer(raw, dtype).reshape(shape)


def _features(record: Content) -> dict[str, Content]:
    features: dict[str, Content] = {}
    for field, value in _fields(record):
        if field == 2:
            raise SourceError("is a SequenceExample, which the published files do not use; only Example is read")
        if field != 1 or not isinstance(value, memoryview):
            raise SourceError("is no tf.train.Example")
        for inner, entry in _fields(value):
            if inner != 1 or not isinstance(entry, memoryview):
                raise SourceError("is no tf.train.Example")
            name, feature = _entry(entry)
            features[name] = feature
            if len(features) > _MOST_FEATURES:
                raise SourceError(f"has more than {_MOST_FEATURES} features")
    return features


def _entry(entry: Content) -> tuple[str, Content]:
    """Name and feature of an entry of the map."""
    name, feature = b"", memoryview(b"")
    for field, value in _fields(entry):
        if not isinstance(value, memoryview) or field not in (1, 2):
            raise SourceError("is no tf.train.Example")
        if field == 2:
            feature = value
        elif len(value) > 1000:
            raise SourceError("is no tf.train.Example: it names a feature by more than 1000 bytes")
        else:
            name = bytes(value)
    return name.decode("utf-8", errors="replace"), feature


def _only_bytes(feature: Content) -> Content:
    """The one byte string of a feature."""
    found: Content | None = None
    for field, values in _fields(feature):
        if field != 1 or not isinstance(values, memoryview):
            raise SourceError("is a list of numbers; a serialised tensor was expected")
        for inner, value in _fields(values):
            if inner != 1 or not isinstance(value, memoryview) or found is not None:
                raise SourceError("is not one byte string; a serialised tensor was expected")
            found = value
    if found is None:
        raise SourceError("is empty; a serialised tensor was expected")
    return found


def _shape(content: Content) -> tuple[int, ...]:
    shape: list[int] = []
    for field, dimension in _fields(content):
        if field == 3:
            raise SourceError("is a tensor of unknown rank")
        if field != 2 or not isinstance(dimension, memoryview) or len(shape) == _MOST_AXES:
            raise SourceError(f"is no tensor of up to {_MOST_AXES} axes")
        size = 0
        for inner, value in _fields(dimension):
            if inner == 1 and isinstance(value, int):
                size = value
        if size >= 2**63:
            raise SourceError("is a tensor with an axis of unknown length")
        shape.append(size)
    return tuple(shape)


def _fields(content: Content) -> Iterator[_Field]:
    """Fields of a message as (number, value): integers, and views of what has a length."""
    at, end = 0, len(content)
    while at < end:
        key, at = _varint(content, at)
        field, kind = key >> 3, key & 7
        if not field:
            raise SourceError("is no protobuf message (field 0)")
        if kind == _VARINT:
            number, at = _varint(content, at)
            yield field, number
            continue
        if kind == _BYTES:
            length, at = _varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise SourceError(f"is no protobuf message (wire type {kind})")
        if length > end - at:
            raise SourceError(f"is no protobuf message: a field of {length:,} bytes where {end - at:,} are left")
        yield field, content[at : at + length]
        at += length


def _varint(content: Content, at: int) -> tuple[int, int]:
    number = 0
    for n in range(_LONGEST_VARINT):
        if at + n >= len(content):
            raise SourceError("is no protobuf message: it ends within a number")
        byte = content[at + n]
        number |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + n + 1
    raise SourceError("is no protobuf message: a number of more than 10 bytes")
