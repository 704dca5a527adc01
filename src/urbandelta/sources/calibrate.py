"""What stored numbers mean: scale, offset, decibels, nodata, and which mask values hide a pixel.

Integers that need no arithmetic stay integers: their scale and offset travel with the acquisition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from urbandelta.errors import ConfigError, SourceError
from urbandelta.sources.choices import Conversion, ZeroRule
from urbandelta.types import Array, BoolArray, MaskArray, MaskReason

_REASONS: Mapping[str, MaskReason] = MappingProxyType(
    {reason.name.lower(): reason for reason in (MaskReason.VALID, *MaskReason) if reason.name is not None}
)

SCL_REASONS: tuple[tuple[int, MaskReason], ...] = (
    (0, MaskReason.NODATA),
    (1, MaskReason.SATURATED),
    (3, MaskReason.CLOUD_SHADOW),
    (8, MaskReason.CLOUD),
    (9, MaskReason.CLOUD),
    (10, MaskReason.CLOUD),
    (11, MaskReason.SNOW),
)
"""Classes of Sentinel-2's scene classification that hide the ground (Sen2Cor: 3 shadow, 8..10 cloud and cirrus)."""


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """What the values of one mask band say about each pixel."""

    band: str
    reasons: tuple[tuple[int, MaskReason], ...]
    otherwise: MaskReason = MaskReason.VALID

    @classmethod
    def valid(cls, band: str) -> MaskRule:
        """A band such as `dataMask`: 1 is valid, anything else is not."""
        return cls(band=band, reasons=((1, MaskReason.VALID),), otherwise=MaskReason.NODATA)

    @classmethod
    def cloud(cls, band: str) -> MaskRule:
        """A cloud mask such as s2cloudless' `CLM`: 0 is clear, 255 was not observed, anything else is cloud."""
        return cls(
            band=band,
            reasons=((0, MaskReason.VALID), (255, MaskReason.NODATA)),
            otherwise=MaskReason.CLOUD,
        )

    @classmethod
    def parse(cls, band: str, text: str) -> MaskRule:
        """From `3=cloud_shadow,8=cloud`, or `scl` for `SCL_REASONS`; values not listed are valid.

        Raises
        ------
        ConfigError
            If an entry is not `NUMBER=REASON` with a known reason.
        """
        if text.strip().lower() == "scl":
            return cls(band=band, reasons=SCL_REASONS)
        return cls(band=band, reasons=tuple(_reason(entry) for entry in text.split(",")))

    def apply(self, codes: Array) -> MaskArray:
        """Mask bits for each value of the band, same shape."""
        mask = np.full(codes.shape, int(self.otherwise), np.uint8)
        for value, reason in self.reasons:
            mask[codes == value] = int(reason)
        if codes.dtype.kind == "f":
            mask[~np.isfinite(codes)] = int(MaskReason.NODATA)
        return mask

    def as_text(self) -> str:
        """One line for the provenance."""
        listed = ",".join(f"{value}={_name(reason)}" for value, reason in self.reasons)
        return f"{self.band}: {listed}, otherwise {_name(self.otherwise)}"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How stored numbers become physical values: `physical = raw * scale + offset`, then the conversion.

    `scale` and `offset` of None take what the file declares (1 and 0 if nothing). `conversion` is `"db"` for
    decibels and `"amplitude"` for amplitudes; both end in linear power. `zero` says what a stored 0 means.
    `view_as` names the integer type whose bits the file really holds.
    """

    scale: float | None = None
    offset: float | None = None
    conversion: Conversion = "none"
    nodata: tuple[float, ...] = ()
    zero: ZeroRule = "valid"
    view_as: str | None = None
    masks: tuple[MaskRule, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The options as plain values, for the provenance."""
        return {
            "scale": self.scale,
            "offset": self.offset,
            "conversion": self.conversion,
            "nodata": list(self.nodata),
            "zero": self.zero,
            "view_as": self.view_as,
            "masks": [rule.as_text() for rule in self.masks],
        }


@dataclass(frozen=True, eq=False)
class Decoded:
    """One band with its meaning: `physical = values * scale + offset`, except where `invalid`."""

    values: Array
    invalid: BoolArray
    scale: float
    offset: float

    def physical(self) -> Decoded:
        """The same band with scale and offset applied, float32."""
        if (self.scale, self.offset) == (1.0, 0.0):
            return Decoded(self.values.astype(np.float32, copy=False), self.invalid, 1.0, 0.0)
        return Decoded((self.values * self.scale + self.offset).astype(np.float32), self.invalid, 1.0, 0.0)


def decode(
    raw: Array, *, encoding: Encoding, nodata: float | None = None, scale: float = 1.0, offset: float = 0.0
) -> Decoded:
    """Say what stored numbers mean.

    Parameters
    ----------
    raw : ndarray, shape (y, x)
        Numbers as stored.
    encoding : Encoding
        The user's word; it overrides what the file declares.
    nodata, scale, offset : float
        What the file declares. Its nodata value counts beside those of `encoding`.

    Returns
    -------
    Decoded
        Integers stay integers, floats become float32 (float32 stays bit by bit as it was). After a conversion,
        values are linear power with scale 1, and NaN where invalid.

    Raises
    ------
    SourceError
        If `view_as` has another size than the stored type, or the type is not a real number.
    """
    numbers = reinterpret(raw, encoding.view_as)
    if numbers.dtype.kind not in "iufb":
        raise SourceError(f"values of type {numbers.dtype} are not real numbers; name a band that holds measurements")
    invalid = _invalid(numbers, encoding, nodata)
    if numbers.dtype.kind == "b":
        numbers = numbers.astype(np.uint8)
    scale = scale if encoding.scale is None else encoding.scale
    offset = offset if encoding.offset is None else encoding.offset
    if encoding.conversion == "none":
        stored = numbers.astype(np.float32, copy=False) if numbers.dtype.kind == "f" else numbers
        return Decoded(stored, invalid, scale, offset)
    physical = numbers.astype(np.float64) * scale + offset
    with np.errstate(over="ignore", invalid="ignore"):
        power = 10.0 ** (physical / 10.0) if encoding.conversion == "db" else physical * physical
        linear = power.astype(np.float32)
    invalid |= ~np.isfinite(linear)
    linear[invalid] = np.nan
    return Decoded(linear, invalid, 1.0, 0.0)


def reinterpret(raw: Array, view_as: str | None) -> Array:
    """The bits of `raw` read as another integer type of the same size; as they are for None."""
    if view_as is None:
        return raw
    try:
        wanted = np.dtype(view_as)
    except TypeError as error:
        raise ConfigError(f"{view_as!r} is not a number type; give one such as uint16") from error
    if wanted.kind not in "iu" or raw.dtype.kind not in "iu" or wanted.itemsize != raw.dtype.itemsize:
        raise SourceError(f"values of type {raw.dtype} cannot be read as {view_as}; the sizes must agree")
    return np.ascontiguousarray(raw).view(wanted.newbyteorder(raw.dtype.byteorder))


def parse_numbers(text: str, *, option: str) -> tuple[float, ...]:
    """Numbers separated by commas; raises `ConfigError` that names the option."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: expected numbers separated by commas, such as 0,65535") from error


def _invalid(numbers: Array, encoding: Encoding, nodata: float | None) -> BoolArray:
    invalid = np.zeros(numbers.shape, np.bool_)
    if numbers.dtype.kind == "f":
        invalid |= ~np.isfinite(numbers)
    declared = [value for value in (nodata, *encoding.nodata) if value is not None and np.isfinite(value)]
    if encoding.zero == "nodata":
        declared.append(0.0)
    for value in declared:
        invalid |= numbers == value
    return invalid


def _reason(entry: str) -> tuple[int, MaskReason]:
    value, _, name = entry.partition("=")
    try:
        return int(value), _REASONS[name.strip().lower()]
    except (ValueError, KeyError) as error:
        known = ", ".join(_REASONS)
        raise ConfigError(f"mask value {entry.strip()!r}: expected NUMBER=REASON with a reason of {known}") from error


def _name(reason: MaskReason) -> str:
    return (reason.name or "valid").lower()
