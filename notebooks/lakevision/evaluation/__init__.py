"""The worth of a trained model: metrics, baselines, controls, the verdict and the report.

May import training and all packages below it. Start reading with evaluate.py.
"""
