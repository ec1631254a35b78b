"""From a trained model to the champion: edge files, parity of all paths, the gate, the ledger of promotions and
reproduction.

May import serving, evaluation and all packages below them. Start reading with gate.py.
"""
