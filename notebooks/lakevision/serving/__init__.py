"""Serves a registered version: in Spark (spark/), over REST (rest/), on a Databricks endpoint.

May import training and all packages below it, but not evaluation. Start reading with spark/score.py or rest/main.py.
"""
