"""The simulated porch: code that only draws photographs.

The agent needs it for camera.kind = "simulated" alone.

May import exif and the modules below it. Start reading with porch.py, then porch_scenery.py and porch_objects.py.
"""
