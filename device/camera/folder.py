"""A folder of JPEGs, replayed in the order of their names as if taken now.

Their pixels do not change.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device.camera import CameraError, Frame, NoMoreFrames
from device.config import SAFE_LABEL

if TYPE_CHECKING:
    from device.config import Settings


class Camera:
    """Replays camera.folder, again and again (camera.loop) or once.

    With camera.labelled, the last _ field of a file's name is the frame's label.
    """

    def __init__(self, settings: Settings):
        self.settings = settings.camera
        self.files: list[Path] = []
        self.frames = 0

    def open(self) -> None:
        """Lists the files. Raises CameraError if there are none."""
        folder = Path(self.settings.folder)
        if folder.is_dir():
            self.files = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if not self.files:
            raise CameraError(f"camera.folder = {str(folder)!r} has no .jpg files to replay")

    def capture(self) -> Frame:
        """The next file as a Frame. Raises CameraError for an unreadable file, NoMoreFrames at the end."""
        if self.frames >= len(self.files) and not self.settings.loop:
            raise NoMoreFrames(f"all {len(self.files)} files of {self.settings.folder} have been replayed")
        path = self.files[self.frames % len(self.files)]
        self.frames += 1
        try:
            jpeg = path.read_bytes()
        except OSError as error:
            raise CameraError(f"{path}: {error.strerror}") from error
        metadata = {"make": "lakevision", "model": "replayed folder"}
        label = path.stem.rpartition("_")[2]
        if self.settings.labelled and label != path.stem and SAFE_LABEL.fullmatch(label):
            metadata["label"] = label
        return Frame(jpeg, metadata)

    def close(self) -> None:
        """There is nothing to release."""
