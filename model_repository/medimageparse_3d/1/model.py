"""Image and prompts -> masks, scores, report. What it calls stands in the module that it names."""

from medimageparse_serving.volume.pipeline import VolumePipeline as TritonPythonModel  # noqa: F401
