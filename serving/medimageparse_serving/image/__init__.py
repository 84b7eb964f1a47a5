"""2D: a picture -> the square that the networks see, mask logits -> probabilities and the report."""
