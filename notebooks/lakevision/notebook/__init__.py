"""What the notebooks display: pictures and samples of the tables.

May import serving, evaluation and all packages below them. Start reading with plots.py.
"""
