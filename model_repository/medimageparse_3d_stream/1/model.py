"""What medimageparse_3d does, in a stream: progress in JSON while the windows are computed, at the end the outputs."""

from medimageparse_contract.models import MODEL_3D
from medimageparse_serving.triton.stream import Stream
from medimageparse_serving.volume.pipeline import VolumePipeline


class TritonPythonModel(Stream, VolumePipeline):
    networks_of = MODEL_3D
