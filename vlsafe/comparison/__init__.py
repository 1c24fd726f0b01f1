"""Any number of evaluations side by side: rates, differences from one of them, the paper's cells, flips."""
