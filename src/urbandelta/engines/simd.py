"""Sixteen float32 at once inside numba functions.

Numba's own vectoriser keeps accumulators in memory, which halves the rate of a small matrix product. This module gives
compiled functions an explicit vector value, so that they can hold their accumulators in registers. LLVM lowers the
same code to AVX-512, to pairs of AVX2 or to quadruples of NEON registers.

Positions are offsets, in elements, into a C-contiguous float32 array; nothing here checks bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, overload, register_model

LANES = 16
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_ALIGNMENT = 4


class _Float32x16(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Float32x16")


float32x16 = _Float32x16()


@register_model(_Float32x16)
class _Float32x16Model(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [position])


def _splat(builder: Any, scalar: Any, vector_type: Any = _VECTOR) -> Any:
    lane = builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(
        lane, ir.Constant(vector_type, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


@intrinsic
def load(_: Any, array: Any, position: Any) -> Any:
    """Sixteen consecutive elements."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *args)
        return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=_ALIGNMENT)

    return float32x16(array, types.intp), codegen


@intrinsic
def load_one(_: Any, array: Any, position: Any) -> Any:
    """One element in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *args)
        return _splat(builder, builder.load(pointer, align=_ALIGNMENT))

    return float32x16(array, types.intp), codegen


@intrinsic
def store(_: Any, array: Any, position: Any, value: Any) -> Any:
    """Write sixteen consecutive elements."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _VECTOR.as_pointer()), align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(array, types.intp, float32x16), codegen


@intrinsic
def splat(_: Any, scalar: Any) -> Any:
    """A float32 in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return float32x16(types.float32), codegen


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def operation(_: Any, left: Any, right: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, *args)

        return float32x16(float32x16, float32x16), codegen

    return operation


def _call(builder: Any, name: str, *args: Any) -> Any:
    signature = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}f32"), args)


_add = _binary(lambda builder, left, right: builder.fadd(left, right))
_sub = _binary(lambda builder, left, right: builder.fsub(left, right))
_mul = _binary(lambda builder, left, right: builder.fmul(left, right))
_div = _binary(lambda builder, left, right: builder.fdiv(left, right))
minimum = _binary(lambda builder, left, right: builder.select(builder.fcmp_ordered("<", left, right), left, right))
"""Smaller of two, lane by lane; `right` where `left` is NaN."""
maximum = _binary(lambda builder, left, right: builder.select(builder.fcmp_ordered(">", left, right), left, right))
"""Larger of two, lane by lane; `right` where `left` is NaN."""


@intrinsic
def fma(_: Any, left: Any, right: Any, addend: Any) -> Any:
    """Product of the first two plus the third, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "fma", *args)

    return float32x16(float32x16, float32x16, float32x16), codegen


@intrinsic
def round_bf16(_: Any, value: Any) -> Any:
    """The nearest bfloat16, ties to even; not for NaN."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def whole(number: int) -> Any:
            return ir.Constant(_INTEGERS, [number] * LANES)

        bits = builder.bitcast(args[0], _INTEGERS)
        odd = builder.and_(builder.lshr(bits, whole(16)), whole(1))
        rounded = builder.add(bits, builder.add(odd, whole(0x7FFF)))
        return builder.bitcast(builder.and_(rounded, whole(0xFFFF0000)), _VECTOR)

    return float32x16(float32x16), codegen


@intrinsic
def exp2_split(_: Any, value: Any) -> Any:
    """(2 ** n, value - n) with n the whole number nearest to `value`, which must lie in -126..126."""
    result = types.UniTuple(float32x16, 2)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = _call(builder, "rint", args[0])
        exponent = builder.add(builder.fptosi(whole, _INTEGERS), ir.Constant(_INTEGERS, [127] * LANES))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(_INTEGERS, [23] * LANES)), _VECTOR)
        return context.make_tuple(builder, result, (power, builder.fsub(args[0], whole)))

    return result(float32x16), codegen


def _overload_operator(symbol: Callable[..., Any], operation: Any) -> None:
    @overload(symbol, inline="always")
    def typed(left, right):  # type: ignore[no-untyped-def] # numba compares this signature with the lambda's
        if left is float32x16 and right is float32x16:
            return lambda left, right: operation(left, right)
        return None


for _symbol, _operation in (
    (operator.add, _add),
    (operator.sub, _sub),
    (operator.mul, _mul),
    (operator.truediv, _div),
):
    _overload_operator(_symbol, _operation)
