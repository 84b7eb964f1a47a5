"""The server's Python: what the steps of `model_repository/` think, and what starts and watches a tritonserver."""
