"""Where the code runs: settings, the Spark session, folders and tables, and helpers for every package.

Only this package may test whether the code runs on Databricks or on a laptop. It imports device/ and no other package
of lakevision. Start reading with workspace.py.
"""
