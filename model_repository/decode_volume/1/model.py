"""Step 1 of 3D: a NIfTI file -> the slices that the networks see, and the geometry that leads back."""

from medimageparse_serving.triton.step import Step
from medimageparse_serving.triton.tensors import Inputs
from medimageparse_serving.volume.nifti_volume import CHOICES, Limits, Options, decode_volume


class TritonPythonModel(Step):
    def configure(self, parameters: dict[str, str]) -> None:
        self.limits = Limits(**{name: int(value) for name, value in parameters.items()})

    def answer(self, inputs: Inputs) -> dict[str, object]:
        options = Options(**{name: inputs.choice(name, choices) for name, choices in CHOICES.items()})
        volume, geometry = decode_volume(inputs.item("image"), options, self.limits)
        # the other of the two is left out: medimageparse_3d takes either
        return {f"volume_{'uint8' if volume.dtype == 'uint8' else 'fp32'}": volume, "geometry": geometry}
