"""How large an image may be."""

from dataclasses import dataclass

from medimageparse_serving.refused import Refused


@dataclass(frozen=True)
class Limits:
    """The largest image that is taken. It is checked before memory is taken."""

    max_image_bytes: int
    max_pixels: int
    max_side: int
    max_scans: int
    max_parts: int  # segments of a JPEG, chunks of a PNG or WebP, tags and strips of a TIFF
    max_metadata_bytes: int

    def check_size(self, width: int, height: int) -> None:
        """Refuses more pixels, or a longer side."""
        if width * height > self.max_pixels or max(width, height) > self.max_side:
            raise Refused(
                f"image is larger than this server takes, {self.max_pixels} pixels and {self.max_side} along a side; "
                "crop or shrink it"
            )
