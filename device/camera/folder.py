"""A folder of JPEGs, replayed in the order of their names as if they were taken now. Their pixels pass through untouched."""

from pathlib import Path

from device.camera import CameraError, Frame, NoMoreFrames
from device.config import SAFE_LABEL


class Camera:
    """camera.folder, over and over (camera.loop) or once. With camera.labelled a name's last _ field is the frame's label."""

    def __init__(self, settings):
        self.settings = settings.camera
        self.frames = 0

    def open(self):
        folder = Path(self.settings.folder)
        self.files = (
            sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            if folder.is_dir()
            else []
        )
        if not self.files:
            raise CameraError(f"camera.folder = {str(folder)!r} has no .jpg files to replay")

    def capture(self):
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

    def close(self):
        """Nothing to give back."""
