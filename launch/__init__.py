"""Launch sweeps on other machines. All engines run the same worker command. Run this in a
checkout: `python -m launch --help`.
"""
