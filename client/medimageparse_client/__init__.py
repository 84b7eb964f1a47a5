"""Segment medical volumes from text prompts on a Triton Inference Server."""

from medimageparse_client.client import Client, Health
from medimageparse_client.errors import (
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
)
from medimageparse_client.segmentation import Segmentation

__all__ = [
    "Client",
    "Health",
    "InvalidRequest",
    "InvalidVolume",
    "MedImageParseError",
    "RequestTimeout",
    "Segmentation",
    "ServerError",
    "ServerUnavailable",
]
