"""The roles of the service."""

ROLES = ("reader", "operator", "admin")
"""Each may do what those before it may: read; start, stop and queue sweeps; see who has tokens and what was done."""
