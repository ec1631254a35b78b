"""All that goes on the Pi, and nothing else: Pillow and obstore are all it needs."""
