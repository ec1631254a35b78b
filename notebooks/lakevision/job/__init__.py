"""The bundle's jobs on this machine: command line, plan, execution of notebooks, and a run's page.

bundle.py reads databricks.yml, and bundle_check.py finds its faults. May import every other package. Start reading with
bundle.py, then plan.py.
"""
