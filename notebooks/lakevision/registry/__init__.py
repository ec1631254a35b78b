"""MLflow: the experiment, what each run records, the registered model and the pyfunc that MLflow loads.

May import ingest, platform and device. Start reading with model_registry.py.
"""
