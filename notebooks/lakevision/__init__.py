"""lakevision: computer vision on the lakehouse, from a Raspberry Pi camera to a model back on the Pi.

A notebook's own folder is on sys.path, here and on Databricks, so the notebooks find this package. The only image
transform lives in device/, beside notebooks/. Importing lakevision makes device importable too, wherever it lies.
"""

import sys
from pathlib import Path

_root = str(Path(__file__).resolve().parents[2])
if _root not in sys.path:
    sys.path.append(_root)  # last, so that a folder such as `tests` there cannot hide an installed package
