"""From rows of `images` to batches: episodes, the split, the Petastorm cache and the feed.

May import ingest, platform and device. Start reading with split.py, then cache.py.
"""
