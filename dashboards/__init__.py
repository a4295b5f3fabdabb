"""Reading results: the report and its plots."""
