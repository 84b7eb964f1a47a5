"""What every model.py is made of: steps, pipelines through BLS, networks on the CPU."""
