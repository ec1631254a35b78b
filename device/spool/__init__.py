"""The spool: a queue of frames on disk that survives power cuts, and the small JSON records beside it.

May import clock and files. Start reading with spool.py.
"""
