"""The version of this software: one for all its packages, and for a model repository that belongs to them."""

from importlib import metadata

VERSION = metadata.version("medimageparse-contract")
