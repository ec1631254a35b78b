"""A registered version at work: in Spark (spark/), as a REST service (rest/), and as a Databricks endpoint.

May import training and all packages below it, but not evaluation. Start reading with spark/score.py or rest/main.py.
"""
