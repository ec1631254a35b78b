"""lakevision: computer vision on the lakehouse, from a Raspberry Pi camera to a model back on the Pi.

A notebook's own folder is on sys.path, here and on Databricks, so that the notebooks find this package. The one transform
lives in device/, beside notebooks/; importing lakevision makes it importable too, wherever the two folders lie.
"""

import sys
from pathlib import Path

_root = str(Path(__file__).resolve().parents[2])
if _root not in sys.path:
    sys.path.append(_root)  # last: a folder name such as `tests` there must not hide an installed package
