"""Search and results: the spec, the board, the store, and Ray Tune, Optuna and MLflow around them."""
