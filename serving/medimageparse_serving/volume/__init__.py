"""3D: a NIfTI file -> slices, windows of slices -> labels, labels -> a NIfTI file and the report."""
