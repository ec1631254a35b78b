"""From a cache to weights: networks, the training loop, the Hyperopt search and the ranks.

May import dataset, registry, ingest, platform and device. Start reading with loop.py.
"""
