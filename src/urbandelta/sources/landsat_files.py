"""Where the files of a Landsat scene lie: a folder, a tar archive, or a compressed one. Nothing is unpacked in place.

A plain tar is read through: GDAL gets position and length of a member, never its name. A compressed archive cannot be
read at random; the files that the metadata name are unpacked into a temporary folder under those plain names, one
archive at a time. Names that lead elsewhere, links and devices are never followed.
"""

from __future__ import annotations

import logging
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from urbandelta.errors import SourceError
from urbandelta.landsat_mtl import MOST_BYTES, Mtl, parse_mtl, read_mtl

log = logging.getLogger(__name__)

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MTL = ("_mtl.txt", "_mtl.json")
MOST_MEMBER_BYTES = 4_000_000_000
"""Largest file that is taken from an archive: a panchromatic band has 500 MB."""


class SceneFiles(Protocol):
    """The files of one scene."""

    @property
    def mtl(self) -> Mtl:
        """Its metadata."""

    @property
    def container(self) -> Path:
        """The metadata file in a folder, or the archive."""

    def raster(self, name: str) -> str | None:
        """What rasterio opens for the file of this name; None if it is not there."""


@dataclass(frozen=True)
class FolderFiles:
    """Files beside their MTL file."""

    mtl: Mtl
    folder: Path

    @property
    def container(self) -> Path:
        """The metadata file."""
        return Path(self.mtl.where)

    def raster(self, name: str) -> str | None:
        """Path of the file of this name; upper and lower case are the same."""
        path = self.folder / name
        if path.is_file():
            return str(path)
        same = [other for other in self.folder.iterdir() if other.name.lower() == name.lower() and other.is_file()]
        return str(same[0]) if same else None


@dataclass(frozen=True)
class TarFiles:
    """Members of a plain tar archive, read in place."""

    mtl: Mtl
    archive: Path

    @property
    def container(self) -> Path:
        """The archive."""
        return self.archive

    def raster(self, name: str) -> str | None:
        """A part of the archive, as GDAL's `/vsisubfile/` names it."""
        place = _members(self.archive, self.archive.stat().st_mtime_ns).get(name.lower())
        return None if place is None else f"/vsisubfile/{place[0]}_{place[1]},{self.archive.resolve()}"


@dataclass(frozen=True)
class PackedFiles:
    """Members of a compressed archive, unpacked into a temporary folder when they are needed."""

    mtl: Mtl
    archive: Path

    @property
    def container(self) -> Path:
        """The archive."""
        return self.archive

    def raster(self, name: str) -> str | None:
        """Path of the unpacked file."""
        names = tuple(sorted(_named_files(self.mtl)))
        path = _unpacked(self.archive, self.archive.stat().st_mtime_ns, names).path / name.lower()
        return str(path) if path.is_file() else None


def find_scene_files(source: Path) -> list[SceneFiles]:
    """Scenes of an MTL file, an archive, or a folder of either at any depth.

    Raises
    ------
    SourceError
        If there is none, or one cannot be read.
    """
    if not source.exists():
        raise SourceError(f"{source}: no such file or folder")
    if source.is_file():
        return [_of_file(source)]
    found = [path for path in sorted(source.rglob("*")) if path.is_file() and (_is_mtl(path.name) or _is_archive(path))]
    # Collection 2 comes with the metadata twice, as text and as JSON; text sorts last and replaces it.
    chosen = {path.parent / (path.stem.lower() if _is_mtl(path.name) else path.name): path for path in found}
    if not chosen:
        raise SourceError(
            f"{source}: holds neither a Landsat metadata file (*_MTL.txt, *_MTL.json) "
            f"nor an archive ({', '.join(ARCHIVES)})"
        )
    return [_of_file(path) for path in chosen.values()]


def _of_file(path: Path) -> SceneFiles:
    if not _is_archive(path):
        return FolderFiles(read_mtl(path), path.parent)
    mtl = _archived_mtl(path)
    return TarFiles(mtl, path) if path.suffix.lower() == ".tar" else PackedFiles(mtl, path)


def _is_mtl(name: str) -> bool:
    return name.lower().endswith(_MTL)


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _archived_mtl(archive: Path) -> Mtl:
    for _, member, tar in _files_of(archive):
        if _is_mtl(member.name):
            where = f"{archive}/{PurePosixPath(member.name).name}"
            return parse_mtl(_content(member, tar).read(MOST_BYTES + 1), where=where)
    raise SourceError(f"{archive}: holds no metadata file (*_MTL.txt); is it a Landsat Level-1 scene?")


def _files_of(archive: Path) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
    """Regular files of an archive by their plain names in lower case, one by one as it is read; each name once."""
    names: set[str] = set()
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                name = PurePosixPath(member.name).name.lower()
                if name in names:
                    raise SourceError(f"{archive}: holds {name} twice, so it is not one scene's; unpack it yourself")
                names.add(name)
                yield name, member, tar
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise SourceError(f"{archive}: cannot be read as an archive ({error}); fetch it again") from error


def _content(member: tarfile.TarInfo, tar: tarfile.TarFile) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # regular files have content
    return content


@lru_cache(maxsize=16)
def _members(archive: Path, _modified_ns: int) -> dict[str, tuple[int, int]]:
    """Position and length of each file in a plain tar, by its name in lower case."""
    places: dict[str, tuple[int, int]] = {}
    for name, member, _ in _files_of(archive):
        if member.offset_data + member.size > archive.stat().st_size:
            raise SourceError(f"{archive}: ends inside {name}; fetch it again")
        places[name] = (member.offset_data, member.size)
    return places


def _named_files(mtl: Mtl) -> set[str]:
    files = {band.file for band in mtl.bands.values()}
    files |= {mtl.quality_file, mtl.saturation_file, mtl.solar_zenith_file}
    return {name.lower() for name in files if name}


class _TemporaryFolder:
    """A folder that is deleted with this object, or when the program ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="urbandelta-landsat-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@lru_cache(maxsize=1)  # the folder of the archive before is deleted when this forgets it
def _unpacked(archive: Path, _modified_ns: int, names: tuple[str, ...]) -> _TemporaryFolder:
    folder = _TemporaryFolder()
    log.info("unpacking %s", archive)
    for name, member, tar in _files_of(archive):
        if name not in names:
            continue
        if member.size > MOST_MEMBER_BYTES:
            raise SourceError(f"{archive}: {name} would have {member.size} bytes, no band of a Landsat scene has")
        with (folder.path / name).open("wb") as target:
            shutil.copyfileobj(_content(member, tar), target, 1 << 20)
    return folder
