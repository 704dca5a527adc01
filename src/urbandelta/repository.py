"""Icechunk repositories by URL: creating, opening and committing, so that a kill at any moment leaves whole commits.

A local store is built beside its target and renamed, so the target is absent or complete. Icechunk does not protect
local directories against two committers, therefore each local commit holds an operating-system lock, which ends with
its process. On object stores Icechunk detects the conflict itself and the write is repeated on the newer snapshot.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import icechunk
import zarr
from filelock import FileLock, Timeout
from zarr.abc.store import Store

from urbandelta import snapshots
from urbandelta.errors import StoreError
from urbandelta.snapshots import BRANCH, Commit

FORMAT = 1
_LOCK_SECONDS = 120.0
_CONFLICT_TRIES = 8
_CHUNKS_A_LIST = 32
_GRACE = timedelta(days=1)

Fill: TypeAlias = Callable[[Store], None]
"""Writes what a new store begins with."""

# Icechunk writes a warning to the terminal for each local store, which the lock below answers, and many lines about a
# damaged list of chunks, which it raises as an error as well.
if "ICECHUNK_LOG" not in os.environ:
    icechunk.set_logs_filter("warn,icechunk::storage::object_store=error,icechunk::repository=off")


class Repository:
    """One branch of an Icechunk repository; made by `create_repository` and `open_repository`.

    What belongs to a store but not to its contents, such as labels of a cube, lies on branches of its own: `main`, and
    with it the snapshot that results name, stays as it is, and a compaction keeps the newest snapshot of every branch.
    """

    def __init__(self, url: str, repo: icechunk.Repository, path: Path | None, *, branch: str = BRANCH) -> None:
        self.url = url
        self.path = path
        self.branch = branch
        self._repo = repo

    def tip(self) -> str:
        """Id of the newest snapshot."""
        return str(self._repo.lookup_branch(self.branch))

    def branches(self) -> frozenset[str]:
        """Names of all branches."""
        with icechunk_errors(self.url):
            return frozenset(self._repo.list_branches())

    def on_branch(self, branch: str) -> Repository:
        """The same repository on another branch, which must be there."""
        return Repository(self.url, self._repo, self.path, branch=branch)

    def start_branch(self, branch: str, attributes: Mapping[str, Any], *, kind: str, fill: Fill) -> Repository:
        """Make a branch that shares nothing with the others; its root holds `attributes` and what `fill` writes.

        A branch of this name is replaced; its files go with the next compaction. A kill half-way leaves an empty
        branch, which `has_branch` does not count.
        """
        root = {"urbandelta_format": FORMAT, "urbandelta_kind": kind, **attributes}
        with local_lock(self.path, self.url), icechunk_errors(self.url):
            if branch in self._repo.list_branches():
                self._repo.delete_branch(branch)
            self._repo.create_branch(branch, snapshots.oldest(self._repo))
            _write_root(self._repo, root, fill, branch=branch)
        return self.on_branch(branch)

    def fork(self, branch: str) -> Repository:
        """A branch that begins with what is here now, in place of any of its name; `promote` makes it the main one."""
        with local_lock(self.path, self.url), icechunk_errors(self.url):
            if branch in self._repo.list_branches():
                self._repo.delete_branch(branch)
            self._repo.create_branch(branch, self.tip())
        return self.on_branch(branch)

    def promote(self) -> None:
        """Let the main branch be what this branch is, at once for all readers, and drop this branch."""
        if self.branch == BRANCH:
            return
        with local_lock(self.path, self.url), icechunk_errors(self.url):
            self._repo.reset_branch(BRANCH, self.tip())
            self._repo.delete_branch(self.branch)
        self.branch = BRANCH

    def has_branch(self, branch: str) -> bool:
        """Whether a branch was made completely."""
        with icechunk_errors(self.url):
            return branch in self._repo.list_branches() and (
                str(self._repo.lookup_branch(branch)) != snapshots.oldest(self._repo)
            )

    def collect(self) -> int:
        """Delete files that no branch and no kept snapshot needs, such as those of a branch that was replaced."""
        with local_lock(self.path, self.url), icechunk_errors(self.url):
            before = datetime.now(UTC) - (_GRACE if self.path is None else timedelta())
            return self._delete_old(before, drop=False)

    def reader(self, snapshot: str) -> Store:
        """Read-only Zarr store of one snapshot."""
        return self._repo.readonly_session(snapshot_id=snapshot).store

    def require(self, snapshot: str) -> str:
        """The snapshot id itself; raises `StoreError` if the store has no such snapshot."""
        try:
            return str(self._repo.lookup_snapshot(snapshot).id)
        except (icechunk.IcechunkError, ValueError) as error:
            raise StoreError(
                f"{self.url}: has no snapshot {snapshot!r}; `urbandelta info` lists them ({_reason(error)})"
            ) from error

    def commit(self, message: str, write: Callable[[Store, str], Mapping[str, Any] | None]) -> str | None:
        """Run `write(store, snapshot)` on the newest snapshot and commit what it wrote, whole or not at all.

        `write` returns metadata to record with the commit, or None if there is nothing to commit; then so does this.
        It may run again on a newer snapshot if another process committed meanwhile (object stores only).
        """
        for _ in range(_CONFLICT_TRIES):
            with (
                local_lock(self.path, self.url),
                contextlib.suppress(icechunk.ConflictError),
                icechunk_errors(self.url),
            ):
                session = self._repo.writable_session(self.branch)
                metadata = write(session.store, str(session.snapshot_id))
                return None if metadata is None else str(session.commit(message, metadata=dict(metadata)))
        raise StoreError(f"{self.url}: other processes kept committing; let one process write at a time")

    def history(self, snapshot: str) -> list[Commit]:
        """Commits up to a snapshot, newest first; of a batch that was compacted, the last one."""
        with icechunk_errors(self.url):
            # Opened anew, since another process may have compacted what this one remembers.
            return snapshots.history(_open(self.url), snapshot)

    def forget_history(self) -> None:
        """Keep the newest snapshot only and delete the files that older ones alone needed.

        A kill half-way leaves files that the next call deletes. Readers of older snapshots must open the store anew.
        """
        with local_lock(self.path, self.url), icechunk_errors(self.url):
            self._delete_old(datetime.now(UTC), drop=True)

    def compact(self) -> int:
        """Keep the last snapshot of each batch for ever, drop those in between and delete the files they alone needed.

        Batches are told by the metadata `appended` of their commits. A kill at any moment loses nothing that was
        committed; the next call finishes. Readers of a snapshot in the midst of a batch must open the store anew. On
        object stores only what is older than a day is dropped: no lock protects what another process is writing there.

        Returns
        -------
        int
            Bytes deleted.
        """
        with local_lock(self.path, self.url), icechunk_errors(self.url):
            before = datetime.now(UTC) - (_GRACE if self.path is None else timedelta())
            self._repo = _open(self.url)
            # Every end is tagged before anything is dropped.
            return self._delete_old(before, drop=snapshots.tag_batch_ends(self._repo))

    def _delete_old(self, before: datetime, *, drop: bool) -> int:
        if drop:
            snapshots.drop_untagged(self._repo, before=before)
        deleted = snapshots.delete_unreachable(self._repo, before=before)
        self._repo = _open(self.url)  # which forgets what was dropped
        return deleted

    def bytes_stored(self) -> int | None:
        """Bytes of all files of a local store, old snapshots included; None for an object store."""
        if self.path is None:
            return None
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def create_repository(
    url: str,
    attributes: Mapping[str, Any],
    *,
    kind: str,
    overwrite: bool = False,
    fill: Fill | None = None,
) -> Repository:
    """Create a store whose root holds `attributes` and what `fill` writes, in one commit.

    A creation that was killed half-way is simply done again.

    Raises
    ------
    StoreError
        If something is stored there already and `overwrite` is false, or it is not a store of this package.
    """
    root = {"urbandelta_format": FORMAT, "urbandelta_kind": kind, **attributes}
    path = local_path(url)
    if path is None:
        return _create_remote(url, root, fill, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{url}: its folder cannot be made ({error.strerror}: {error.filename})") from error
    with local_lock(path, url), icechunk_errors(url):
        occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if occupied:
            _require_ours(url, kind=kind, overwrite=overwrite)
        staging = path.with_name(f".{path.name}.creating")
        shutil.rmtree(staging, ignore_errors=True)
        _write_root(_create(icechunk.local_filesystem_storage(str(staging))), root, fill)
        if occupied:
            retired = path.with_name(f".{path.name}.retired")
            shutil.rmtree(retired, ignore_errors=True)
            path.rename(retired)
            staging.rename(path)
            shutil.rmtree(retired)
        else:
            staging.rename(path)
    return open_repository(url, kind=kind)


def open_repository(url: str, *, kind: str) -> Repository:
    """Open a store.

    Raises
    ------
    StoreError
        If there is none, it is not a store of this package, of another kind, or of a newer format.
    """
    path = local_path(url)
    if path is not None and not path.exists():
        raise StoreError(f"{url}: no such {kind}; create it first or check the path")
    if path is not None and not path.is_dir():
        raise StoreError(f"{url}: is a file, not a {kind} (a {kind} is a folder)")
    repository = Repository(url, _open(url), path)
    attributes = dict(zarr_group(repository, repository.tip()).attrs)
    version, found = attributes.get("urbandelta_format"), attributes.get("urbandelta_kind")
    if not isinstance(version, int):
        raise StoreError(f"{url}: is an Icechunk repository but not a {kind} of urbandelta; give another path")
    if version > FORMAT:
        raise StoreError(
            f"{url}: written by a newer urbandelta (format {version}, this one reads {FORMAT}); upgrade urbandelta"
        )
    if found != kind:
        raise StoreError(f"{url}: holds {found}, not {kind}; give the path of a {kind} store")
    return repository


def zarr_group(repository: Repository, snapshot: str) -> zarr.Group:
    """Root group of a snapshot, read-only; raises `StoreError` if the snapshot holds none."""
    try:
        return zarr.open_group(repository.reader(snapshot), mode="r", zarr_format=3, use_consolidated=False)
    except FileNotFoundError as error:
        raise StoreError(
            f"{repository.url}: was not created completely, or its newest snapshot is damaged; "
            "restore it from a copy, or create it again"
        ) from error
    except icechunk.IcechunkError as error:
        raise StoreError(
            f"{repository.url}: was not created completely; create it again or give another path ({_reason(error)})"
        ) from error


def local_path(url: str) -> Path | None:
    """Folder of a local URL (plain path or file://), None for an object store; raises `StoreError` for an empty one."""
    if not url.strip():
        raise StoreError("the path of a store is empty; give a folder or a URL")
    scheme, rest = _scheme(url)
    if scheme == "":
        return Path(rest).expanduser().absolute()
    if scheme == "file":
        return Path(unquote(urlsplit(url).path)).absolute()
    return None


@contextlib.contextmanager
def icechunk_errors(url: str) -> Iterator[None]:
    """Turn what Icechunk and codecs report (a full disk, a lost chunk, no access) into one line; conflicts pass."""
    try:
        yield
    except icechunk.IcechunkError as error:
        raise StoreError(
            f"{url}: could not be read or written ({_reason(error)}); see that all its files are there, that there is "
            "space and access, and run the command again"
        ) from error
    except RuntimeError as error:
        # The codecs have no error of their own for bytes that they did not write.
        if "decompress" not in str(error):
            raise
        raise StoreError(f"{url}: holds damaged files ({error}); restore them from a copy, or make it anew") from error


@contextlib.contextmanager
def local_lock(path: Path | None, url: str) -> Iterator[None]:
    """Hold the commit lock of a local store; object stores need none."""
    if path is None:
        yield
        return
    # NOTE: flock ends with the process, so a killed writer blocks nobody; the file itself may stay behind.
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    try:
        file.touch()  # FileLock takes some unwritable folders for a lock that another process holds, and waits
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise StoreError(f"{url}: another process has been writing for {_LOCK_SECONDS:g} s; wait for it") from None
    except OSError as error:
        raise StoreError(f"{url}: cannot be written ({error.strerror}: {error.filename})") from error
    try:
        yield
    finally:
        lock.release()


def _config() -> icechunk.RepositoryConfig:
    """Split the lists of chunks, which Icechunk writes anew at each commit.

    In one piece they would grow with every commit: 160,000 chunks take 3 MB, times 500 acquisitions of a whole site.
    """
    name, along = icechunk.ManifestSplitCondition.name_matches, icechunk.ManifestSplitDimCondition.DimensionName
    splitting = icechunk.ManifestSplittingConfig.from_dict(
        {
            name("values"): {along("time"): _CHUNKS_A_LIST},
            name("mask"): {along("time"): _CHUNKS_A_LIST},
            name("score"): {along("y"): 1},
            name("label"): {along("y"): 1},
        }
    )
    return icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(splitting=splitting))


_MEMORY: dict[str, icechunk.Storage] = {}


def storage_of(url: str) -> icechunk.Storage:
    """Icechunk storage of a URL; credentials come from the environment only.

    `s3://bucket/prefix` (AWS_ENDPOINT_URL for other servers), `gs://bucket/prefix`,
    `az://container/prefix` (AZURE_STORAGE_ACCOUNT), `memory://name` (this process only), a path or `file://`.
    """
    path = local_path(url)
    if path is not None:
        return icechunk.local_filesystem_storage(str(path))
    scheme, rest = _scheme(url)
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme == "memory":
        return _MEMORY.setdefault(rest, icechunk.in_memory_storage())
    if not bucket or not prefix:
        raise StoreError(f"{url}: needs a bucket and a prefix, such as {scheme}://bucket/cubes/name")
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=bucket,
            prefix=prefix,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=endpoint is not None and endpoint.startswith("http://"),
            force_path_style=endpoint is not None,
            from_env=True,
        )
    if scheme in ("gs", "gcs"):
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    if scheme in ("az", "azure"):
        account = os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if not account:
            raise StoreError(f"{url}: set AZURE_STORAGE_ACCOUNT to the name of the storage account")
        return icechunk.azure_storage(account=account, container=bucket, prefix=prefix, from_env=True)
    raise StoreError(f"{url}: unknown kind of URL; give a path, file://, s3://, gs:// or az://")


def _scheme(url: str) -> tuple[str, str]:
    scheme, separator, rest = url.partition("://")
    return (scheme.lower(), rest) if separator else ("", url)


def _create(storage: icechunk.Storage) -> icechunk.Repository:
    return icechunk.Repository.create(storage, config=_config())


def _open(url: str) -> icechunk.Repository:
    try:
        return icechunk.Repository.open(storage_of(url), config=_config())
    except icechunk.IcechunkError as error:
        raise StoreError(f"{url}: is not a readable Icechunk repository ({_reason(error)}); check the path") from error


def _create_remote(url: str, root: Mapping[str, Any], fill: Fill | None, *, overwrite: bool) -> Repository:
    storage = storage_of(url)
    kind = str(root["urbandelta_kind"])
    try:
        if not icechunk.Repository.exists(storage):
            _write_root(_create(storage), root, fill)
            return open_repository(url, kind=kind)
        repo = icechunk.Repository.open(storage, config=_config())
    except icechunk.IcechunkError as error:
        raise StoreError(f"{url}: cannot be created ({_reason(error)})") from error
    unfinished = sum(1 for _ in repo.ancestry(branch=BRANCH)) == 1
    if not unfinished:
        _require_ours(url, kind=kind, overwrite=overwrite)
    _write_root(repo, root, fill)
    return open_repository(url, kind=kind)


def _write_root(repo: icechunk.Repository, root: Mapping[str, Any], fill: Fill | None, *, branch: str = BRANCH) -> None:
    session = repo.writable_session(branch)
    zarr.create_group(session.store, attributes=dict(root), overwrite=True)
    if fill is not None:
        fill(session.store)
    session.commit(f"create {root['urbandelta_kind']}")


def _require_ours(url: str, *, kind: str, overwrite: bool) -> None:
    if not overwrite:
        raise StoreError(f"{url}: exists already; open it, give another path, or ask to overwrite it")
    path = local_path(url)
    if path is not None and not path.is_dir():
        raise StoreError(f"{url}: is a file and will not be overwritten; give another path")
    repository = Repository(url, _open(url), path)
    attributes = zarr_group(repository, repository.tip()).attrs
    if "urbandelta_format" not in attributes:
        raise StoreError(f"{url}: is not a store of urbandelta and will not be overwritten; give another path")
    # Scores of a mistyped path must never replace a cube, which may have taken days to fill.
    if attributes.get("urbandelta_kind") != kind:
        raise StoreError(
            f"{url}: holds {attributes.get('urbandelta_kind')}, not {kind}, and will not be overwritten; "
            "give another path"
        )


def _reason(error: Exception) -> str:
    """The sentence of an error without Icechunk's drawing of its call stack."""
    lines = [line.strip(" x|`->\t") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
