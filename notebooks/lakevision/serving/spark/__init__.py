"""Scoring inside Spark: the model in executors, and the stream from `images` to `predictions`.

May import what serving may import. Start reading with score.py.
"""
