"""What a trained model is worth: metrics with intervals, baselines, controls, the verdict and the report.

May import training and all packages below it. Start reading with evaluate.py.
"""
