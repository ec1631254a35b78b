"""From a trained model to the champion: edge files, parity, gate, ledger, promotion, reproduction.

May import serving, evaluation and all packages below them. Start reading with gate.py.
"""
