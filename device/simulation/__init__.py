"""The simulated porch: code that only draws photographs. The agent needs it for `kind = "simulated"` alone.

May import the camera's EXIF module. Start reading with porch.py.
"""
