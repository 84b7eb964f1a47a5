"""What the download command says when the published checkpoint cannot be had."""

import hashlib
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from medimageparse import download
from medimageparse.download import CHECKPOINTS, download_checkpoint
from medimageparse.errors import ExportError

REFUSED = SimpleNamespace(status_code=403, headers={}, request=None)


def test_without_a_token(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "get_token", lambda: None)
    with pytest.raises(ExportError, match="no Hugging Face token; accept the licence"):
        download_checkpoint("medimageparse", tmp_path)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (GatedRepoError("gated", response=REFUSED), "has not been given access yet; accept the licence"),
        (LocalEntryNotFoundError("offline"), "cannot be reached from here"),
        (EntryNotFoundError("gone"), f"{CHECKPOINTS['medimageparse']} is no longer in"),
        (HfHubHTTPError("refused", response=REFUSED), r"refused the download \(403\)"),
    ],
)
def test_when_hugging_face_does_not_give_it(error, sentence, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr(download, "get_token", lambda: "token")
    monkeypatch.setattr(download, "hf_hub_download", refuse)
    with pytest.raises(ExportError, match=sentence):
        download_checkpoint("medimageparse", tmp_path)


def test_prints_the_hash_of_what_it_got(tmp_path, monkeypatch, capsys):
    def fetch(repository, name, local_dir):
        assert (repository, name) == ("microsoft/BiomedParse", "biomedparse_v1.pt")
        path = local_dir / name
        path.write_bytes(b"weights")
        return str(path)

    monkeypatch.setattr(download, "get_token", lambda: "token")
    monkeypatch.setattr(download, "hf_hub_download", fetch)
    assert download_checkpoint("medimageparse", tmp_path) == tmp_path / "biomedparse_v1.pt"
    assert hashlib.sha256(b"weights").hexdigest() in capsys.readouterr().out
