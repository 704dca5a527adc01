"""The words that an import can be told, apart from the code that obeys them: the command line's help needs no more."""

from __future__ import annotations

from typing import Literal, TypeAlias

Resampling: TypeAlias = Literal["nearest", "bilinear", "average", "cubic"]
"""How pixels get onto another grid."""
Conversion: TypeAlias = Literal["none", "db", "amplitude"]
"""What radar values are, besides power."""
ZeroRule: TypeAlias = Literal["nodata", "valid"]
"""What a stored 0 means."""
