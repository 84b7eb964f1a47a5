"""Files of medical images: what the caller has -> the bytes to send, and back to voxels and pixels."""
