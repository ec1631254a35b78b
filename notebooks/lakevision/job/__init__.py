"""The bundle's jobs: databricks.yml read and checked, notebooks executed on this machine, and the page of a run.

May import every other package. Start reading with bundle.py.
"""
