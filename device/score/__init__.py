"""Scoring on the device: frames from the spool to labels, actions and results.

May import every package of device but the commands at its root; score drives the camera through capture. Start reading with score.py.
"""
