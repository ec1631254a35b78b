"""From a cache to weights: networks, the training loop, the Hyperopt search and the Horovod ranks.

May import dataset, registry, ingest, platform and device. Start reading with loop.py.
"""
