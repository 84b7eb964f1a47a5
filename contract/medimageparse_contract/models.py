"""The models that clients call."""

MODEL_3D, MODEL_2D = "medimageparse_3d", "medimageparse"
PUBLIC_MODELS = (MODEL_3D, MODEL_2D)
