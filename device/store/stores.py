"""Where frames go, by URL: S3, Azure and Google through obstore, a local folder, a Databricks volume (volume.py).

A store is two functions that never overwrite and never hang; what can go wrong has four names, for there are four things to do.
"""

import errno
import os
import re
from pathlib import Path

from device import files
from device.store import credentials, volume
from device.store.types import AlreadyThere, Denied, Refused, Store, Unavailable, classify, first_line


def provider(url):
    """Which of credentials.NAMES a store.url belongs to."""
    scheme = "file" if url.startswith("/") else url.partition("://")[0]
    return {"s3a": "s3", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure"}.get(scheme, scheme)


def open_store(settings):
    """The Store of settings.store.url; no network yet. Raises Denied where the settings can't make one."""
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


def cloud(settings, kind, secrets):
    """(obstore's client of settings.store.url, call(function, *arguments, **options) which raises this module's exceptions).

    passing: an exception of obstore's that the caller wants as it is.
    """
    try:
        import obstore
        from obstore import exceptions as failures
        from obstore.store import from_url
    except ImportError as error:
        raise Denied(f"store.url needs obstore: pip install -r device/requirements.txt ({error})") from error

    config = {name.lower(): value for name, value in secrets.items()}
    if kind == "s3":
        config.update({"aws_region": settings.store.region} if settings.store.region else {})
        config.update({"aws_endpoint": settings.store.endpoint} if settings.store.endpoint else {})
    elif kind == "azure" and settings.store.endpoint:
        config["azure_storage_endpoint"] = settings.store.endpoint
    elif settings.store.endpoint:
        config["google_base_url"] = settings.store.endpoint
    client = {
        "timeout": f"{int(settings.upload.timeout_s * 1000)}ms",
        "connect_timeout": f"{int(settings.upload.connect_timeout_s * 1000)}ms",
        "allow_http": settings.store.allow_http,
        "user_agent": "lakevision-device",
    }
    try:
        store = from_url(settings.store.url, config=config, client_options=client, retry_config={"max_retries": 0})
    except (failures.BaseError, ValueError) as error:
        raise Denied(credentials.redact(f"store.url or its credentials: {first_line(str(error))}", secrets)) from None

    def call(function, *arguments, passing=(), **options):
        try:
            return function(store, *arguments, **options)
        except passing:
            raise
        except failures.AlreadyExistsError:
            raise AlreadyThere from None
        except (failures.BaseError, OSError) as error:  # NotFoundError is a FileNotFoundError
            status = re.search(r"status code: (\d{3})", str(error))
            # "from None": the original holds the request, and with it a signature.
            raise classify(status and int(status[1]), credentials.redact(str(error), secrets)) from None

    return store, call


def _cloud(settings, kind, secrets):
    _, call = cloud(settings, kind, secrets)
    import obstore

    def get(key):
        return bytes(call(obstore.get, key).bytes())

    return Store(settings.store.url, lambda key, data: call(obstore.put, key, data, mode="create") and None, get)


# ---- a local folder: a USB disk, a mounted share, a test


def _local(root):
    def put(key, data):
        path = root / key
        hidden = path.with_name(f".{path.name}.part")  # Spark passes over names that begin with a dot
        try:
            if not root.is_dir():
                # A disk that is not mounted must not be mistaken for an empty folder on the SD card.
                raise Denied(f"{root} is not there: make the folder, or mount its disk")
            if path.exists():
                hidden.unlink(missing_ok=True)  # both are there when the power went between link and unlink
                _sync(path, root)
                raise AlreadyThere
            path.parent.mkdir(parents=True, exist_ok=True)
            hidden.write_bytes(data)
            with open(hidden, "rb") as file:
                os.fsync(file.fileno())  # before it gets its name: no reader may see half a picture, power cut or not
            _link(hidden, path)
            _sync(path, root)
        except PermissionError as error:
            raise Denied(f"{error.filename}: {error.strerror}") from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
                raise Refused(f"{path}: {error.strerror}", definite=True) from error
            raise Unavailable(f"{path}: {error.strerror}") from error

    def get(key):
        try:
            return (root / key).read_bytes()
        except OSError as error:
            raise Unavailable(f"{root / key}: {error.strerror}") from error

    return Store(str(root), put, get)


def _sync(path, root):
    """Makes the name outlive a power cut; device=... and date=... may be new folders."""
    for folder in path.parents:
        files.sync_folder(folder)
        if folder == root:
            break


def _link(hidden, path):
    """Gives the file its name, unless that is taken: link(2) never overwrites. exFAT and some shares have no links."""
    try:
        os.link(hidden, path)
    except FileExistsError:
        raise AlreadyThere from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(hidden, path)  # we are the only writer of this key, and it was free a moment ago
    else:
        os.unlink(hidden)
