"""Opens a store by URL: S3, Azure, Google, a local folder or a Databricks volume.

A store is two functions that never overwrite and never hang. types.py names the four ways in which they fail.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device import files
from device.store import credentials, volume
from device.store.types import AlreadyThere, Denied, Refused, Store, Unavailable, classify, first_line

if TYPE_CHECKING:
    from device.config import Settings


def provider(url: str) -> str:
    """The provider of a store.url, a key of credentials.NAMES."""
    scheme = "file" if url.startswith("/") else url.partition("://")[0]
    return {"s3a": "s3", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure"}.get(scheme, scheme)


def open_store(settings: Settings) -> Store:
    """The Store of settings.store.url, without a network request. Raises Denied if the settings are insufficient."""
    config, kind = settings.store, provider(settings.store.url)
    if not config.url:
        raise Denied("store.url is empty: set it in /etc/lakevision/device.toml, as in s3://bucket/folder")
    if kind == "file":
        path = config.url[len("file://") :] if config.url.startswith("file://") else config.url
        return _local(Path(path))
    secrets = credentials.load(kind)
    if kind == "volume":
        return volume.open_volume(settings, secrets)
    return _cloud(settings, kind, secrets)


# ---- clouds


def cloud(settings: Settings, kind: str, secrets: dict[str, str]) -> tuple[Any, Callable[..., Any]]:
    """(obstore's client of settings.store.url, call(function, *arguments, passing=(), **options)).

    call() runs a function of obstore on the client and raises the exceptions of types.py. passing: exceptions of
    obstore that it does not translate. Raises Denied if the client cannot be made.
    """
    try:
        from obstore import exceptions as failures
        from obstore.store import from_url
    except ImportError as error:
        raise Denied(f"store.url needs obstore: pip install -r device/requirements.txt ({error})") from error

    config: dict[str, Any] = {name.lower(): value for name, value in secrets.items()}
    if kind == "s3":
        config.update({"aws_region": settings.store.region} if settings.store.region else {})
        config.update({"aws_endpoint": settings.store.endpoint} if settings.store.endpoint else {})
    elif kind == "azure" and settings.store.endpoint:
        config["azure_storage_endpoint"] = settings.store.endpoint
    elif settings.store.endpoint:
        config["google_base_url"] = settings.store.endpoint
    client: Any = {
        "timeout": f"{int(settings.upload.timeout_s * 1000)}ms",
        "connect_timeout": f"{int(settings.upload.connect_timeout_s * 1000)}ms",
        "allow_http": settings.store.allow_http,
        "user_agent": "lakevision-device",
    }
    try:
        options: Any = {"config": config, "client_options": client, "retry_config": {"max_retries": 0}}
        store = from_url(settings.store.url, **options)
    except (failures.BaseError, ValueError) as error:
        raise Denied(credentials.redact(f"store.url or its credentials: {first_line(str(error))}", secrets)) from None

    def call(function: Callable[..., Any], *arguments: Any, passing: Any = (), **options: Any) -> Any:
        try:
            return function(store, *arguments, **options)
        except passing:
            raise
        except failures.AlreadyExistsError:
            raise AlreadyThere from None
        except (failures.BaseError, OSError) as error:  # NotFoundError is a FileNotFoundError
            status = re.search(r"status code: (\d{3})", str(error))
            # "from None": the original exception holds the request, which contains a signature.
            raise classify(int(status[1]) if status else None, credentials.redact(str(error), secrets)) from None

    return store, call


def _cloud(settings: Settings, kind: str, secrets: dict[str, str]) -> Store:
    _, call = cloud(settings, kind, secrets)
    import obstore

    def put(key: str, data: bytes) -> None:
        call(obstore.put, key, data, mode="create")

    def get(key: str) -> bytes:
        return bytes(call(obstore.get, key).bytes())

    return Store(settings.store.url, put, get)


# ---- a local folder: a USB disk, a mounted share, a test


def _local(root: Path) -> Store:
    """A folder as a store. files.write_atomically would overwrite; link(2) in put() never does."""

    def put(key: str, data: bytes) -> None:
        path = root / key
        hidden = path.with_name(f".{path.name}.part")  # Spark skips names that begin with a dot
        try:
            if not root.is_dir():
                # A missing mount must not fill the SD card.
                raise Denied(f"{root} is not there: make the folder, or mount its disk")
            if path.exists():
                hidden.unlink(missing_ok=True)  # both exist if the power failed between link and unlink
                _sync(path, root)
                raise AlreadyThere
            path.parent.mkdir(parents=True, exist_ok=True)
            hidden.write_bytes(data)
            with open(hidden, "rb") as file:
                os.fsync(file.fileno())  # before the rename: no reader may see half a picture, even after a power cut
            _link(hidden, path)
            _sync(path, root)
        except PermissionError as error:
            raise Denied(f"{error.filename}: {error.strerror}") from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
                raise Refused(f"{path}: {error.strerror}", definite=True) from error
            raise Unavailable(f"{path}: {error.strerror}") from error

    def get(key: str) -> bytes:
        try:
            return (root / key).read_bytes()
        except OSError as error:
            raise Unavailable(f"{root / key}: {error.strerror}") from error

    return Store(str(root), put, get)


def _sync(path: Path, root: Path) -> None:
    """Makes the name survive a power cut; device=... and date=... may be new folders."""
    for folder in path.parents:
        files.sync_folder(folder)
        if folder == root:
            break


def _link(hidden: Path, path: Path) -> None:
    """Gives the file its name unless the name is taken. Raises AlreadyThere. exFAT and some shares have no links."""
    try:
        os.link(hidden, path)
    except FileExistsError:
        raise AlreadyThere from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(hidden, path)  # this process is the only writer of the key, which was free a moment ago
    else:
        os.unlink(hidden)
