"""The REST service: one process listens and supervises, worker processes load the model and score.

May import what serving may import. Start reading with main.py, then supervisor.py and worker.py.
"""
