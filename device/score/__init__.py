"""Scoring on the device: frames from the spool become labels, actions and results.

May import every package of device, and capture, because the scorer may drive the camera; no other command at
device's root. Start reading with score.py, then scorer.py.
"""
