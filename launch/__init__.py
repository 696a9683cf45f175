"""Launch sweeps on other machines. All engines run the same worker command. `python -m launch` in a
checkout is `tinyjax launch` where tinyjax is installed, which has this folder as `tinyjax.launch`.
"""
