"""HTTP before Triton: forms at /v1, Azure's /score, a viewer. Stateless; everything that thinks is in the models."""
