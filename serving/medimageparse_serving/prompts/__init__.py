"""Text, or the targets of an image type -> tokens."""
