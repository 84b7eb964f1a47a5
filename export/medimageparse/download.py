"""The published checkpoints from Hugging Face, for users who have accepted their licence there."""

from pathlib import Path

from huggingface_hub import get_token, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from medimageparse_contract.hashing import sha256

from medimageparse.errors import ExportError

REPOSITORY = "microsoft/BiomedParse"
CHECKPOINTS = {"medimageparse_3d": "biomedparse_v2.ckpt", "medimageparse": "biomedparse_v1.pt"}
PAGE = f"https://huggingface.co/{REPOSITORY}"


def download_checkpoint(model: str, folder: Path) -> Path:
    """Downloads the checkpoint of a public model into a folder and prints where it lies and its SHA-256."""
    checkpoint = CHECKPOINTS[model]
    if get_token() is None:
        raise ExportError(
            f"there is no Hugging Face token; accept the licence on {PAGE}, then run `hf auth login` or set HF_TOKEN"
        )
    try:
        path = Path(hf_hub_download(REPOSITORY, checkpoint, local_dir=folder))
    except GatedRepoError as error:
        raise ExportError(
            f"your Hugging Face account has not been given access yet; accept the licence on {PAGE}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ExportError(
            "huggingface.co cannot be reached from here; download on another machine and copy the file"
        ) from error
    except EntryNotFoundError as error:
        raise ExportError(f"{checkpoint} is no longer in {REPOSITORY}; look for it on {PAGE}") from error
    except HfHubHTTPError as error:
        raise ExportError(
            f"Hugging Face refused the download ({error.response.status_code}); check the token and {PAGE}"
        ) from error
    print(f"{path}\nSHA-256 {sha256(path)}")  # noqa: T201
    return path
