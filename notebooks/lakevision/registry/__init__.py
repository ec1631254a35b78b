"""MLflow: the experiment, the record of each run, the registered model and its pyfunc.

May import ingest, platform and device. Start reading with model_registry.py.
"""
