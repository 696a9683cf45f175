"""Launch sweeps on other machines. All engines run the same worker command. To be run in a
checkout: `python -m launch --help`.
"""
