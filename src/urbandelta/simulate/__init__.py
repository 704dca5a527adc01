"""Scenes whose truth is known: land that changes with the seasons, and buildings that appear at known dates.

Read from the ground up: `surfaces` (materials and how sensors see them), `crops` (the year of fields, meadows and
leaves), `landscape` (what lies where and what is built when), `weather`, `optical` and `radar` (one image), `revisit`
(when), `recipes` (one row an era), `scene` (the whole), `files` (GeoTIFFs).
"""

from urbandelta.simulate.files import MASK_BAND, import_pattern, write_last_truth, write_scenes, write_truth
from urbandelta.simulate.scene import NO_CHANGE, Scene, simulate
from urbandelta.simulate.surfaces import LandCover

__all__ = [
    "MASK_BAND",
    "NO_CHANGE",
    "LandCover",
    "Scene",
    "import_pattern",
    "simulate",
    "write_last_truth",
    "write_scenes",
    "write_truth",
]
