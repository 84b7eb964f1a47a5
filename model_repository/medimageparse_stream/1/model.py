"""What medimageparse does, in a stream: progress in JSON while the tiles are computed, at the end the outputs."""

from medimageparse_contract.models import MODEL_2D
from medimageparse_serving.image.pipeline import ImagePipeline
from medimageparse_serving.triton.stream import Stream


class TritonPythonModel(Stream, ImagePipeline):
    networks_of = MODEL_2D
