"""MLflow: the experiment, the records of runs, the registered model and its pyfunc code.

May import ingest, platform and device. Start reading with model_registry.py.
"""
