"""Segment medical images and volumes from text prompts on a Triton Inference Server."""

from medimageparse_client.client import Client
from medimageparse_client.errors import (
    AccessDenied,
    InvalidImage,
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    UnknownPrompt,
)
from medimageparse_client.health import Health
from medimageparse_client.results.image_segmentation import ImageSegmentation
from medimageparse_client.results.segmentation import Segmentation

__all__ = [
    "AccessDenied",
    "Client",
    "Health",
    "ImageSegmentation",
    "InvalidImage",
    "InvalidRequest",
    "InvalidVolume",
    "MedImageParseError",
    "RequestTimeout",
    "Segmentation",
    "ServerBusy",
    "ServerError",
    "ServerUnavailable",
    "UnknownPrompt",
]
