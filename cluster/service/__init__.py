"""`musweep serve`: sweeps as web pages and as a REST API."""
