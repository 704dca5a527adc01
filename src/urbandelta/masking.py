"""Which pixels of an acquisition must not be used, and why: clouds and the noisy border of radar scenes.

All masks end in one bitfield, `types.MaskReason`. What a provider delivers (a cloud mask, the scene classification) is
looked up pixel by pixel; what is found here (s2cloudless on L1C, border noise) looks at neighbours, so it wants a whole
acquisition rather than blocks of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from urbandelta.border import BorderOptions, border_noise
from urbandelta.errors import ConfigError, ShapeError, SourceError
from urbandelta.sources.calibrate import SCL_REASONS, MaskRule
from urbandelta.types import Acquisition, Array, BoolArray, FloatArray, MaskArray, MaskReason

if TYPE_CHECKING:
    from urbandelta.eras import Stream

__all__ = (
    "CLOUD_BANDS",
    "BorderOptions",
    "CloudOptions",
    "MaskingRules",
    "apply",
    "apply_merged",
    "border_noise",
    "cloud_probability",
    "cloud_reasons_s2cloudless",
    "fringe_reasons",
    "is_empty",
    "provider_cloud_reasons",
    "scl_reasons",
)

CLOUD_BANDS: tuple[str, ...] = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Sentinel-2 L1C bands that s2cloudless looks at, in its order; L2A lacks B10, so it cannot be judged."""

_NODATA, _CLOUD = int(MaskReason.NODATA), int(MaskReason.CLOUD)
_BORDER = int(MaskReason.BORDER_NOISE)
_LEVELS = ("L1C",)


@dataclass(frozen=True, kw_only=True)
class CloudOptions:
    """How s2cloudless is run.

    Reflectance is averaged to pixels of about `resolution_m`, judged there, smoothed by a disk of `average_over` and
    grown by one of `dilation` of these pixels. 160 m is the resolution of Sentinel Hub's own mask, which the published
    pipeline used; threshold and disks are the library's defaults.
    """

    threshold: float = 0.4
    resolution_m: float = 160.0
    average_over: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"cloud threshold {self.threshold:g}: a probability lies between 0 and 1")
        if not (self.resolution_m > 0 and self.average_over >= 0 and self.dilation >= 0):
            raise ConfigError("cloud resolution must be positive, average_over and dilation 0 or more")


@dataclass(frozen=True, kw_only=True)
class MaskingRules:
    """What is masked besides what the source itself says; nothing by default."""

    clouds: CloudOptions | None = None
    border: BorderOptions | None = None

    def __bool__(self) -> bool:
        return self.clouds is not None or self.border is not None

    @classmethod
    def of(cls, *, clouds: str | None = None, border: int | None = None) -> MaskingRules | None:
        """From options: `clouds` "s2cloudless", and the margin of `border` in pixels; None if neither is given."""
        if clouds not in (None, "", "s2cloudless"):
            raise ConfigError(f"clouds {clouds!r}: only s2cloudless finds clouds here")
        if border is not None and border < 0:
            raise ConfigError(f"border {border}: give 0 or more pixels")
        if not (clouds or border):
            return None
        return cls(clouds=CloudOptions() if clouds else None, border=BorderOptions(erode_px=border) if border else None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the provenance."""
        document: dict[str, Any] = {}
        if self.clouds is not None:
            document["clouds"] = {"method": "s2cloudless", "version": _s2cloudless_version(), **vars(self.clouds)}
        if self.border is not None:
            document["border"] = dict(vars(self.border))
        return document

    def check(self, stream: Stream, *, level: str = "") -> None:
        """Refuse rules that make no sense for a stream; raises `ConfigError`."""
        if self.border is not None and stream.kind != "sar":
            raise ConfigError(f"border noise is a matter of radar; stream {stream.name} is {stream.kind}")
        if self.clouds is None:
            return
        lacking = [band for band in CLOUD_BANDS if band not in stream.bands]
        if lacking:
            raise ConfigError(
                f"s2cloudless judges Sentinel-2 L1C by {', '.join(CLOUD_BANDS)}; stream {stream.name} lacks "
                f"{', '.join(lacking)}"
            )
        if level and level not in _LEVELS and level != "unknown":
            raise ConfigError(f"s2cloudless was trained on L1C, not on {level}; use the scene classification (SCL)")
        _detector(self.clouds)


def scl_reasons(scl: Array) -> MaskArray:
    """Mask bits of Sentinel-2's scene classification (Sen2Cor), same shape.

    Nodata, saturated or defective, cloud shadow, clouds of medium and high probability, cirrus and snow hide the
    ground. Dark areas (2), unclassified pixels (7) and water do not: in cities, 2 and 7 are mostly roofs and shadows of
    buildings.
    """
    return MaskRule(band="SCL", reasons=SCL_REASONS).apply(scl)


def provider_cloud_reasons(cloud_mask: Array) -> MaskArray:
    """Mask bits of a provider's cloud mask such as Sentinel Hub's CLM: 0 clear, 255 not observed, else cloud."""
    return MaskRule.cloud("CLM").apply(cloud_mask)


def cloud_probability(
    reflectance: FloatArray, valid: BoolArray, *, pixel_m: float, options: CloudOptions | None = None
) -> tuple[FloatArray, int]:
    """Probability of cloud by s2cloudless on averaged pixels.

    Parameters
    ----------
    reflectance : ndarray, shape (y, x, 10)
        Top-of-atmosphere reflectance (0..1) of `CLOUD_BANDS`.
    valid : ndarray of bool, shape (y, x)
    pixel_m : float
        Size of a pixel in metres.
    options : CloudOptions, optional

    Returns
    -------
    probability : ndarray, shape (ceil(y / factor), ceil(x / factor))
        0 where no pixel is valid.
    factor : int
        Pixels along one side of an averaged pixel.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    SourceError
        If s2cloudless is not installed, or values are no reflectance.
    """
    options = options or CloudOptions()
    if reflectance.ndim != 3 or reflectance.shape[2] != len(CLOUD_BANDS) or valid.shape != reflectance.shape[:2]:
        raise ShapeError(
            f"clouds need reflectance of shape (y, x, {len(CLOUD_BANDS)}) and a mask (y, x), not "
            f"{reflectance.shape} and {valid.shape}"
        )
    factor = max(1, round(options.resolution_m / pixel_m))
    means, seen = _block_means(reflectance, valid, factor)
    if seen.any() and float(np.median(means[seen])) > 2:
        raise SourceError("values of about 10000 are not reflectance (0..1); declare their scale, such as 1e-4")
    probability = np.zeros(seen.shape, np.float32)
    if seen.any():
        # One thread: several acquisitions are read at once, and sums must not depend on the number of cores.
        probability[seen] = _detector(options).classifier.image_predict_proba(means[seen][None, None], num_threads=1)[
            0, 0, :, 1
        ]
    return probability, factor


def cloud_reasons_s2cloudless(
    reflectance: FloatArray, valid: BoolArray, *, pixel_m: float, options: CloudOptions | None = None
) -> MaskArray:
    """Mask bits of clouds found by s2cloudless, shape (y, x); see `cloud_probability` for the parameters.

    References
    ----------
    .. [1] https://github.com/sentinel-hub/sentinel2-cloud-detector
    """
    options = options or CloudOptions()
    probability, factor = cloud_probability(reflectance, valid, pixel_m=pixel_m, options=options)
    coarse = _detector(options).get_mask_from_prob(probability[None])[0] > 0
    height, width = valid.shape
    cloudy = coarse.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    return np.where(cloudy, _CLOUD, 0).astype(np.uint8)


def apply(acquisition: Acquisition, rules: MaskingRules, *, pixel_m: float) -> Acquisition:
    """Mask an acquisition by rules; its provenance then names them and how many pixels each hid.

    Parameters
    ----------
    acquisition : Acquisition
        Whole, not a block: the masks look at neighbours.
    rules : MaskingRules
    pixel_m : float
        Size of its pixels in metres.

    Raises
    ------
    ConfigError
        If it lacks a band that s2cloudless needs.
    """
    if not rules:
        return acquisition
    mask = acquisition.mask | fringe_reasons(acquisition.values, acquisition.mask, rules, encoding=acquisition)
    return apply_merged(replace(acquisition, mask=mask), rules, pixel_m=pixel_m)


class HasEncoding(Protocol):
    """Says what stored numbers mean: physical = raw * scale + offset."""

    @property
    def scale(self) -> float:
        """Factor."""

    @property
    def offset(self) -> float:
        """Summand."""


def fringe_reasons(values: Array, mask: MaskArray, rules: MaskingRules, *, encoding: HasEncoding) -> MaskArray:
    """First part of `apply`, for each granule before granules are merged: zeros and fringes of stored values.

    Where two granules meet, the clean pixels of one can then take the place of the other's fringe; and since the margin
    is not yet taken, no gap opens between two that only just touch.
    """
    if rules.border is None:
        return np.zeros_like(mask)
    return _border(values, mask, replace(rules.border, erode_px=0), encoding)


def apply_merged(acquisition: Acquisition, rules: MaskingRules, *, pixel_m: float) -> Acquisition:
    """Second part of `apply`, which needs all granules: the margin at the border, clouds, and the provenance."""
    mask = acquisition.mask
    if rules.border is not None:
        mask = mask | _border(acquisition.values, mask, replace(rules.border, fringe_px=0), acquisition)
    if rules.clouds is not None:
        mask = mask | _clouds(acquisition, pixel_m, rules.clouds)
    document = {**rules.as_dict(), "hidden": _hidden(mask, rules)}
    return replace(acquisition, mask=mask, provenance={**acquisition.provenance, "masking": document})


def is_empty(acquisition: Acquisition) -> bool:
    """Whether no pixel was observed: all are nodata or border noise. A scene full of clouds is not empty."""
    return bool(np.all(acquisition.mask & (_NODATA | _BORDER)))


def _border(values: Array, mask: MaskArray, options: BorderOptions, encoding: HasEncoding) -> MaskArray:
    power = values.astype(np.float32) * np.float32(encoding.scale) + np.float32(encoding.offset)
    return np.where(border_noise(power, mask & (_NODATA | _BORDER) == 0, options), _BORDER, 0).astype(np.uint8)


def _clouds(acquisition: Acquisition, pixel_m: float, options: CloudOptions) -> MaskArray:
    lacking = [band for band in CLOUD_BANDS if band not in acquisition.bands]
    if lacking:
        raise ConfigError(f"{acquisition.item_id}: s2cloudless needs {', '.join(lacking)} as well; import all bands")
    chosen = [acquisition.bands.index(band) for band in CLOUD_BANDS]
    # float32 of one band at a time would do, but ten of them are small beside the thirteen that are held already.
    reflectance = acquisition.values[..., chosen].astype(np.float32)
    reflectance *= np.float32(acquisition.scale)
    reflectance += np.float32(acquisition.offset)
    valid = acquisition.mask & _NODATA == 0
    return cloud_reasons_s2cloudless(reflectance, valid, pixel_m=pixel_m, options=options)


def _hidden(mask: MaskArray, rules: MaskingRules) -> dict[str, int]:
    bits = {"cloud": _CLOUD} if rules.clouds is not None else {}
    if rules.border is not None:
        bits["border_noise"] = _BORDER
    return {name: int(np.count_nonzero(mask & bit)) for name, bit in bits.items()}


def _block_means(values: FloatArray, valid: BoolArray, factor: int) -> tuple[Array, BoolArray]:
    """Means (y, x, band) over the valid pixels of blocks, float64, and which blocks have any."""
    height, width, bands = values.shape
    rows, columns = -(-height // factor), -(-width // factor)
    starts_y, starts_x = np.arange(0, height, factor), np.arange(0, width, factor)
    counts = np.add.reduceat(np.add.reduceat(valid.astype(np.int64), starts_y, axis=0), starts_x, axis=1)
    means = np.zeros((rows, columns, bands))
    for band in range(bands):
        known = np.where(valid, values[..., band], 0).astype(np.float64)
        sums = np.add.reduceat(np.add.reduceat(known, starts_y, axis=0), starts_x, axis=1)
        means[..., band] = sums / np.maximum(counts, 1)
    return means, counts > 0


@cache
def _detector(options: CloudOptions) -> Any:
    try:
        from s2cloudless.cloud_detector import S2PixelCloudDetector
    except ImportError as error:
        raise SourceError(f"clouds by s2cloudless need pip install 'urbandelta[clouds]' ({error})") from error
    return S2PixelCloudDetector(
        threshold=options.threshold,
        all_bands=False,
        average_over=options.average_over,
        dilation_size=options.dilation,
    )


def _s2cloudless_version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("s2cloudless")
    except importlib.metadata.PackageNotFoundError:
        return ""
