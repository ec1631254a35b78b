"""From files in the landing zone to rows in `images` and `rejected_images`.

Here belong capture into the landing zone, the stream, EXIF and pixel statistics, quality, duplicates, labels and the
Delta tables. May import platform and device. Start reading with stream.py.
"""
