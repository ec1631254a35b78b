"""Fills the landing zone: a simulated camera, a replayed folder or bucket, or uploads of devices."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tqdm import tqdm

from device import files
from device.simulation import porch
from lakevision.ingest.landing import SUFFIXES

if TYPE_CHECKING:
    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places

Sizes = list[tuple[str, int]]  # name and length in bytes of each photograph of a source
Source = tuple[Sizes, list[str], Callable[[str], bytes]]  # photographs, names of other files, function that reads one


@dataclass
class Landed:
    """Result of land(): number of new photographs, of photographs landed before, and names of other files."""

    new: int = 0
    known: int = 0
    skipped: tuple[str, ...] = ()


def land(cfg: Config, places: Places) -> Landed:
    """Brings the photographs of capture.source into places.landing. A second run writes nothing twice.

    Raises FileNotFoundError or ValueError, which name the setting, if the source contains no photographs.
    """
    source = {"simulated": _simulated, "folder": _replayed, "landing": _uploaded}[cfg.capture.source]
    landed = source(cfg, places)
    if not landed.new + landed.known:
        raise ValueError(
            f"capture.source {cfg.capture.source!r} gave no photographs "
            f"({cfg.capture.path or places.landing}; suffixes {', '.join(sorted(SUFFIXES))})"
        )
    return landed


def _simulated(cfg: Config, places: Places) -> Landed:
    scenes = porch.plan(cfg.capture.photographs, cfg.capture.seed, (cfg.capture.size, cfg.capture.size))
    if cfg.capture.shortcut != "none":
        scenes = porch.spoilt(scenes, cfg.capture.shortcut)
    wanted = [scene for scene in scenes if not (Path(places.landing) / porch.key(scene)).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while it draws
        photographs = zip(wanted, pool.map(porch.jpeg, wanted), strict=True)
        for scene, data in tqdm(photographs, total=len(wanted), desc="drawing", unit="photo", disable=not wanted):
            write(Path(places.landing) / porch.key(scene), data)
    return Landed(new=len(wanted), known=len(scenes) - len(wanted))


def _replayed(cfg: Config, places: Places) -> Landed:
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


def _uploaded(cfg: Config, places: Places) -> Landed:
    return Landed(known=sum(1 for path in Path(places.landing).rglob("*") if path.suffix.lower() in SUFFIXES))


def _folder(path: str) -> Source:
    """The photographs of a local folder and its subfolders, without hidden files."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"capture.path: {folder} is not a folder")
    paths = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    names = [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in paths]
    return *_photographs(names), lambda name: (folder / name).read_bytes()


def _bucket(url: str) -> Source:
    """The photographs of a bucket: s3://bucket/prefix, az://, gs://.

    Credentials come from the environment or from the provider's own chain.
    """
    import obstore
    from obstore.store import from_url

    # Plain http only if the endpoint of an own S3 server is http (MinIO, Ceph); the clouds use https.
    store = (
        from_url(url, client_options={"allow_http": True})
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        else from_url(url)
    )
    names = sorted((entry["path"], entry["size"]) for batch in obstore.list(store) for entry in batch)
    return *_photographs(names), lambda name: obstore.get(store, name).bytes().to_bytes()


def _photographs(names: Sizes) -> tuple[Sizes, list[str]]:
    chosen = [(name, size) for name, size in names if Path(name).suffix.lower() in SUFFIXES]
    return chosen, sorted({name for name, _ in names} - {name for name, _ in chosen})


def landing_name(name: str) -> str:
    """A name that every store and Spark can read.

    Colons, control characters and a leading _ or . of any part are percent-encoded: Hadoop paths cannot contain a
    colon, and Spark's file listing hides a part that begins with _ or . (many cameras write _DSC0001.JPG).
    """
    parts = [re.sub(r"[:\x00-\x1f\\]", lambda match: quote(match[0], safe=""), part) for part in name.split("/")]
    return "/".join(f"%{ord(part[0]):02X}{part[1:]}" if part[0] in "_." else part for part in parts)


def write(path: Path, data: bytes) -> None:
    """Writes a file, with its folders, so that a reader sees all of the file or nothing.

    The partial file has a hidden name, which Spark does not list.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, data)
