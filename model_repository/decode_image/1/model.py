"""Step 1 of 2D: an image file -> the square that the networks see, and the geometry that leads back."""

from medimageparse_serving.image.image_file import decode_image
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs


class TritonPythonModel(Step):
    def configure(self, parameters: dict[str, str]) -> None:
        self.limits = Limits(**{name: int(value) for name, value in parameters.items()})

    def answer(self, inputs: Inputs) -> dict[str, object]:
        square, geometry = decode_image(inputs.item("image"), self.limits)
        return {"square": square, "geometry": geometry}
