"""Figures of the papers that need no sweep: each function computes one, exactly, from a few numbers.

They return plain values, ready for JSON; `sweeps/experiments.py` says which protocol calls them with what.
"""
