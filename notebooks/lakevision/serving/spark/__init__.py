"""Scores in Spark: runs the model in executors, and streams from `images` to `predictions`.

May import what serving may import. Start reading with score.py.
"""
