"""The simulated porch as a camera."""

import io

from PIL import Image

from device import camera, config


def opened(tmp_path, **more):
    lines = "\n".join(f"{key} = {value}" for key, value in {"size": "[96, 64]", **more}.items())
    (tmp_path / "device.toml").write_text(f'[device]\nid = "porch-1"\n[camera]\nkind = "simulated"\n{lines}\n')
    used = camera.load(config.load(tmp_path / "device.toml"))
    used.open()
    return used


def test_frame_is_jpeg_of_configured_size(tmp_path):
    frame = opened(tmp_path).capture()
    image = Image.open(io.BytesIO(frame.jpeg))
    assert image.format == "JPEG" and image.size == (96, 64)
    assert frame.metadata == {"make": "lakevision", "model": "simulated porch"}


def test_visit_shows_both_labels_equally_often(tmp_path):
    used = opened(tmp_path, labelled="true")
    labels = [used.capture().metadata["label"] for _ in range(12)]
    assert labels[:6].count("package") == labels[6:].count("package") == 3
    assert len(set(labels[:3])) == 1, "the first half of a visit shows one scene"


def test_same_seed_draws_same_labels(tmp_path):
    def labels(seed):
        used = opened(tmp_path, labelled="true", seed=seed)
        return [used.capture().metadata["label"] for _ in range(48)]

    assert labels(3) == labels(3) != labels(4)
