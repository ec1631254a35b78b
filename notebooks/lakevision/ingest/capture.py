"""Fills the landing zone: a simulated camera, a replayed folder or bucket of photographs, or devices that have uploaded already."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from device.simulation import porch
from lakevision.ingest.landing import SUFFIXES


@dataclass
class Landed:
    """What a run of land() found: photographs newly written, already there, and files of the source that are no photographs."""

    new: int = 0
    known: int = 0
    skipped: tuple = ()


def land(cfg, places):
    """Brings the photographs of capture.source into where.landing. Run again it writes nothing twice. Returns Landed.

    Raises FileNotFoundError or ValueError that name the setting where the source holds no photographs.
    """
    source = {"simulated": _simulated, "folder": _replayed, "landing": _uploaded}[cfg.capture.source]
    landed = source(cfg, places)
    if not landed.new + landed.known:
        raise ValueError(
            f"capture.source {cfg.capture.source!r} gave no photographs "
            f"({cfg.capture.path or places.landing}; suffixes {', '.join(sorted(SUFFIXES))})"
        )
    return landed


def _simulated(cfg, places):
    scenes = porch.plan(cfg.capture.photographs, cfg.capture.seed, (cfg.capture.size, cfg.capture.size))
    if cfg.capture.shortcut != "none":
        scenes = porch.spoilt(scenes, cfg.capture.shortcut)
    wanted = [scene for scene in scenes if not (Path(places.landing) / porch.key(scene)).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the GIL while it draws
        drawn = pool.map(porch.jpeg, wanted)
        for scene, data in tqdm(
            zip(wanted, drawn), total=len(wanted), desc="drawing", unit="photo", disable=not wanted
        ):
            write(Path(places.landing) / porch.key(scene), data)
    return Landed(new=len(wanted), known=len(scenes) - len(wanted))


def _replayed(cfg, places):
    if not cfg.capture.path:
        raise ValueError(
            "capture.source is folder, but capture.path is empty: --images FOLDER, or --set capture.path=FOLDER"
        )
    names, skipped, read = (_bucket if "://" in cfg.capture.path else _folder)(cfg.capture.path)
    landed = Landed(skipped=tuple(skipped))
    for name, size in tqdm(names, desc="replaying", unit="photo"):
        target = Path(places.landing) / landing_name(name)
        if target.exists() and target.stat().st_size == size:
            landed.known += 1
            continue
        write(target, read(name))
        landed.new += 1
    return landed


def _uploaded(cfg, places):
    there = sum(1 for path in Path(places.landing).rglob("*") if path.suffix.lower() in SUFFIXES)
    return Landed(known=there)


def _folder(path):
    """(names with sizes, names that are no photographs, a function from name to bytes) of a local folder."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"capture.path: {folder} is no folder")
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    names = [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]
    return _photographs(names) + (lambda name: (folder / name).read_bytes(),)


def _bucket(url):
    """The same of a bucket: s3://bucket/prefix, az://, gs://; credentials from the environment or the provider's own chain."""
    import obstore
    from obstore.store import from_url

    # Plain http only where the owner's own S3 server says so (MinIO, Ceph); the clouds are https.
    store = (
        from_url(url, client_options={"allow_http": True})
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        else from_url(url)
    )
    names = sorted((entry["path"], entry["size"]) for batch in obstore.list(store) for entry in batch)
    return _photographs(names) + (lambda name: obstore.get(store, name).bytes().to_bytes(),)


def _photographs(names):
    chosen = [(name, size) for name, size in names if Path(name).suffix.lower() in SUFFIXES]
    return chosen, sorted({name for name, _ in names} - {name for name, _ in chosen})


def landing_name(name):
    """A name that every store and Spark can read: colons, control characters and a leading _ or . of any part are percent-encoded.

    Spark's file listing takes a part that begins with _ or . for a hidden file, and many cameras write _DSC0001.JPG;
    Hadoop's paths can't hold a colon.
    """
    parts = [re.sub(r"[:\x00-\x1f\\]", lambda match: quote(match[0], safe=""), part) for part in name.split("/")]
    return "/".join(f"%{ord(part[0]):02X}{part[1:]}" if part[0] in "_." else part for part in parts)


def write(path, data):
    """Writes a file so that a reader sees all of it or nothing. Hidden names are not listed by Spark while they grow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    os.replace(partial, path)
