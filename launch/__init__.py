"""Sweeps on other machines than this one: what runs is always the same worker command, engines only
render what they are given, or submit it. From a checkout: `python -m launch --help`.
"""
