"""The models that clients call."""

MODEL_3D, MODEL_2D = "medimageparse_3d", "medimageparse"
PUBLIC_MODELS = (MODEL_3D, MODEL_2D)
# A public model's decoupled twin: the same inputs and outputs, and `progress` in responses of its own. It is served
# with the model, where the repository has it.
STREAMS = {MODEL_3D: "medimageparse_3d_stream", MODEL_2D: "medimageparse_stream"}
