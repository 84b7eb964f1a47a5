"""Image and prompts -> probabilities, categories, report. What it calls stands in the module that it names."""

from medimageparse_serving.image.pipeline import ImagePipeline as TritonPythonModel  # noqa: F401
