"""Where the code runs: settings, the Spark session, the places of files and tables, and helpers that every package uses.

Only this package may ask whether the code runs on Databricks or on a laptop. It imports no other package of lakevision.
Start reading with workspace.py.
"""
