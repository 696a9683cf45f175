"""Launch sweeps on other machines. Every engine runs the same worker command: it renders that
command, or submits it. Run from a checkout: `python -m launch --help`.
"""
