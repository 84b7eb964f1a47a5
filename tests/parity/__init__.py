"""Our code against tensors recorded from the original implementation: see __main__.py."""
