"""Every error that urbandelta raises on purpose: what is wrong, where, and how to mend it.

The command line turns each of these into one line and exit code 1; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class UrbandeltaError(Exception):
    """Base of the tree; catch it to catch every deliberate error."""


class ShapeError(UrbandeltaError, ValueError):
    """An array has the wrong number of dimensions, bands or pixels."""


class AoiError(UrbandeltaError, ValueError):
    """An area of interest cannot be read, is empty, or lies outside its CRS."""


class GridError(UrbandeltaError, ValueError):
    """A grid is malformed, or data lie on another grid than the cube."""


class SourceError(UrbandeltaError):
    """A file or folder to import is missing, damaged, or not what it was declared to be."""


class StoreError(UrbandeltaError):
    """A cube or score store is missing, foreign, locked, or would be damaged by the request."""


class DuplicateAcquisition(StoreError):
    """The stream already holds another acquisition with this time."""


class WeightsError(UrbandeltaError):
    """A weights file is damaged, foreign, or for another network."""


class ContractError(UrbandeltaError):
    """Input data break the contract that a set of weights was trained under."""


class TooFewObservations(UrbandeltaError):
    """No window holds enough observations between the dates that were asked for."""


class TrainingError(UrbandeltaError):
    """A training cannot start, go on, or use what it was given."""


class EngineError(UrbandeltaError):
    """A computing engine is unknown, not installed, or cannot do what was asked."""


class ConfigError(UrbandeltaError, ValueError):
    """An option, a date or a monitor file is malformed."""


class ProductError(UrbandeltaError):
    """A map or a report cannot be made from these scores, or would overwrite another result."""


class TruthError(UrbandeltaError):
    """Truth cannot be read, does not say what changed, or does not fit the map that it is to judge."""


class LabelError(UrbandeltaError):
    """Labels are missing, of another run, or cannot be made from what a cube holds."""


class EventError(UrbandeltaError):
    """Events cannot be found in these scores, written, or read."""


class MetadataError(SourceError):
    """A Landsat metadata file (MTL) is malformed, or does not state what a correction needs."""


class NotifyError(UrbandeltaError):
    """Somebody could not be told of new events; the events themselves are safe in the feed."""


class FetchError(UrbandeltaError):
    """Something at a distance cannot be had: an archive does not answer, refuses, or sends other bytes than it said."""


class MonitorError(ConfigError):
    """A monitor file is missing, malformed, or asks for what there is not."""
