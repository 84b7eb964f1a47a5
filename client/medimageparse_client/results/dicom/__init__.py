"""Results as DICOM objects that refer to the slices they were made of. Needs the extra `dicom`."""
