"""The spool: a queue of frames on disk that survives power cuts, and small JSON records.

May import clock and files. Start reading with spool.py.
"""
