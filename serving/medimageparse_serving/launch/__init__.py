"""Starts a tritonserver on the model repository and keeps it answering right."""
