"""What the device's own code costs around the interpreter, and what int8 saves and loses.

    python tests/bench/edge.py        # 2 minutes on 2 cores

vs_bare     seconds of device.model.probabilities (decode, transform, invoke) over those of a bare loop: Pillow's open
            and resize, the interpreter's call; nothing turned upright, checked or refused
int8_size   bytes of the int8 file over those of the float32 one
int8_loss   accuracy that int8 loses on the test side of a training of EPOCHS epochs, in points (100 is all)

One thread, 600 x 600 simulated photographs, the default network at 96 pixels, trained here. The last line is JSON.
"""

import contextlib
import io
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNT, EPOCHS, TIMED, TURNS = 600, 25, 200, 5


def trained(scratch):
    """(JPEGs, feed.Arrays of a third held out, folder of the edge files) of a network trained on simulated
    photographs.
    """
    import numpy as np

    from device.model import transform
    from device.simulation import porch
    from lakevision.dataset import feed
    from lakevision.platform import config
    from lakevision.training import loop

    cfg = config.load("local")
    line = cfg.training.transform
    scenes = porch.plan(COUNT)
    jpegs = [porch.jpeg(scene) for scene in scenes]
    side = transform.image_size(line)
    pixels = np.stack([np.frombuffer(transform.pixels(jpeg, line), np.uint8).reshape(side, side, 3) for jpeg in jpegs])
    targets = np.array([int(scene.package) for scene in scenes], np.int32)
    third = COUNT // 3
    keys = [f"{number:064x}" for number in range(COUNT)]
    held, used = (
        feed.Arrays(pixels[:third], targets[:third], keys[:third]),
        feed.Arrays(pixels[third:], targets[third:], keys[third:]),
    )
    setting = loop.Setting(
        model=cfg.training.model,
        side=side,
        classes=2,
        epochs=EPOCHS,
        batch_size=cfg.training.batch_size,
        learning_rate=0.0025,
        dropout=0.2,
        width=24,
        augment=True,
        seed=cfg.training.seed,
    )
    network = loop.with_weights(
        setting, loop.fit(used, replace(held, pixels=held.pixels[:8], targets=held.targets[:8]), setting).weights
    )
    return jpegs, held, exported(network, used, line, scratch)


def exported(network, used, line, scratch):
    """The folder of the network's edge files. used: feed.Arrays that int8 is calibrated on."""
    from lakevision.platform import config
    from lakevision.release import edge_bundle, edge_export

    cfg = config.load("local")
    with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the addresses of all its tensors
        network.export(str(scratch / "saved"))
    variants = edge_export.export(
        scratch / "saved", used.pixels[::2][: cfg.deploy.calibration_images], scratch / "edge"
    )
    edge_bundle.seal(
        scratch / "edge",
        {
            "model": "bench",
            "version": "1",
            "classes": ["empty", "package"],
            "threshold": 0.5,
            "transform": line,
            "golden": [],
            "variants": variants,
            "lineage": {},
        },
    )
    return scratch / "edge"


def bare(jpegs, path, side):
    """Seconds for all JPEGs with no code of ours."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from PIL import Image

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    began = time.perf_counter()
    for jpeg in jpegs:
        image = Image.open(io.BytesIO(jpeg)).resize((side, side), Image.Resampling.BILINEAR)
        interpreter.set_tensor(inputs["index"], np.asarray(image)[None].astype(inputs["dtype"]))
        interpreter.invoke()
        interpreter.get_tensor(outputs["index"])
    return time.perf_counter() - began


def main():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from device import memory
    from device.model import edge_model, transform
    from lakevision.release import parity

    with rig.scratch_folder() as scratch:
        jpegs, held, folder = trained(scratch)
        memory.keep()
        manifest, taken = edge_model.read_manifest(folder), {}
        for variant in manifest["variants"]:
            loaded = edge_model.load(folder, variant)
            taken[variant] = []
            for _ in range(TURNS):
                theirs = bare(jpegs[:TIMED], folder / f"{variant}.tflite", transform.image_size(manifest["transform"]))
                began = time.perf_counter()
                for jpeg in jpegs[:TIMED]:
                    edge_model.probabilities(loaded, jpeg)
                taken[variant].append((time.perf_counter() - began, theirs))
            ours, theirs = (statistics.median(pair[place] for pair in taken[variant]) for place in (0, 1))
            print(
                f"{variant}: ours {1000 * ours / TIMED:.2f} ms, bare {1000 * theirs / TIMED:.2f} ms an image",
                flush=True,
            )
        accuracy = parity.accuracies(held, folder)
        ratio = {
            variant: statistics.median(ours / theirs for ours, theirs in pairs) for variant, pairs in taken.items()
        }
    sizes = {name: entry["bytes"] for name, entry in manifest["variants"].items()}
    figures = {
        "bytes": sizes,
        "accuracy": accuracy,
        "ms": {
            variant: round(1000 * statistics.median(ours for ours, _ in pairs) / TIMED, 2)
            for variant, pairs in taken.items()
        },
        "vs_bare": {variant: round(value, 3) for variant, value in ratio.items()},
    }
    rig.print_result(
        "edge",
        {
            "vs_bare": round(max(ratio.values()), 3),
            "int8_size": round(sizes["int8"] / sizes["float32"], 3),
            "int8_loss": round(100 * (accuracy["float32"] - accuracy["int8"]), 2),
        },
        **figures,
    )


if __name__ == "__main__":
    main()
