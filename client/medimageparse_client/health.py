"""What a server says of itself."""

from dataclasses import dataclass, field

from medimageparse_client.errors import MedImageParseError


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    is_live: the server answers
    models: medimageparse_3d (volumes) and medimageparse (images) -> whether it has loaded it and takes requests
    server: its name and version
    problem: why it is not live, or which model did not segment a canary
    error: the same as the error that a request would have raised
    """

    is_live: bool
    models: dict[str, bool]
    server: str = ""
    problem: str = ""
    error: MedImageParseError | None = field(default=None, repr=False, compare=False)

    @property
    def is_ready(self) -> bool:
        """Whether a model takes requests now, and none has failed; a server may serve only one of them."""
        return self.is_live and any(self.models.values()) and not self.problem
