"""Forms, right and wrong; nothing of them lies on a disk."""

import asyncio
import random

import pytest
from helpers.gateway import FakeModels
from medimageparse_gateway.errors import TritonError
from medimageparse_gateway.forms import read_form
from starlette.requests import Request

TYPE = {"content-type": "multipart/form-data; boundary=b"}


def part(name, content, more=b""):
    head = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"' + more
    return head + b"\r\n\r\n" + content + b"\r\n"


FILE = b"a file"
IMAGE, PROMPT, END = part(b"image", FILE, b'; filename="ct.nii"'), part(b"prompt", b"liver"), b"--b--\r\n"
REFUSING = TritonError("invalid_argument", "the model was asked")


class AskedModels(FakeModels):
    """Keeps what it is asked for, and refuses it."""

    async def infer(self, model, inputs, outputs, **options):
        self.asked = {name: bytes(value) if name == "image" else value for name, value in inputs.items()}
        raise REFUSING


@pytest.fixture
def asked(before):
    """asked(body, content type) -> the answer, and the inputs of the model."""

    def asked(body, headers=TYPE):
        models = AskedModels()
        models.asked = None
        answer = before(models).http.post("/v1/volumes", content=body, headers=headers)
        return answer, models.asked

    return asked


@pytest.mark.parametrize(
    "body",
    [
        IMAGE + PROMPT + END,
        PROMPT + IMAGE + END,
        IMAGE + PROMPT + END + b"an epilogue",
        part(b"image", FILE) + PROMPT + END,
        part(b"image", FILE, b'; filename="x"\r\nContent-Type: application/gzip') + PROMPT + END,
        part(b"image", FILE, b'; filename="x"\r\nContent-Length: 6') + PROMPT + END,
    ],
)
def test_right_forms_reach_the_model(asked, body):
    _, inputs = asked(body)
    assert (inputs["image"], inputs["text"]) == (FILE, b"liver")


def test_prompts_keep_their_order_and_letters(asked):
    _, inputs = asked(IMAGE + part(b"prompt", "Leber, groß".encode()) + part(b"prompt", b" spleen ") + END)
    assert inputs["text"].decode() == "Leber, groß & spleen"


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_form_in_small_pieces_is_the_same_form(asked, size):
    content = bytes(random.Random(1).choices(b"\r\n-x", k=2000))
    body = part(b"image", content) + PROMPT + END
    _, inputs = asked(body[k : k + size] for k in range(0, len(body), size))
    assert inputs["image"] == content


def test_a_form_may_come_in_two_pieces_cut_anywhere():
    """Between the last two letters of its end too."""
    body, scope = IMAGE + PROMPT + END, {"type": "http", "headers": [(b"content-type", TYPE["content-type"].encode())]}
    for cut in range(1, len(body)):
        pieces = iter([(body[:cut], True), (body[cut:], False)])

        async def receive(pieces=pieces):
            piece, more = next(pieces)
            return {"type": "http.request", "body": piece, "more_body": more}

        form = asyncio.run(read_form(Request(scope, receive), ()))
        assert (form.image, form.prompts) == (FILE, ["liver"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        END,
        PROMPT + END,
        part(b"image", b"") + PROMPT + END,
        IMAGE + PROMPT,
        IMAGE[:-4],
        IMAGE + PROMPT + b"--b-",
        IMAGE + IMAGE + PROMPT + END,
        IMAGE + part(b"prompt", b"\xff") + END,
        IMAGE + part(b"prompt", b"x" * 2**17) + END,
        IMAGE + part(b"intensity", b"auto") * 2 + PROMPT + END,
        IMAGE + part(b"elsewhere", b"") + PROMPT + END,
        IMAGE + part(b"", b"") + END,
        IMAGE + b"--b\r\n\r\nno head\r\n" + END,
        IMAGE + b"--b\r\nContent-Disposition: attachment\r\n\r\nx\r\n" + END,
        IMAGE + b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nx\r\n" + END,
        IMAGE + b"--b\r\nX: " + b"y" * 2**17 + b"\r\n\r\nx\r\n" + END,
        IMAGE + b"--b\r\n" + b"z" * 2**17,
        IMAGE + part(b"prompt", b"liver", b'; filename="x"\r\nContent-Length: 3') + END,
        IMAGE + PROMPT * 2000 + END,
        IMAGE.replace(b"\r\n", b"\n") + PROMPT + END,
        b"--c" + IMAGE[3:],
    ],
)
def test_wrong_forms_are_refused_with_a_sentence(asked, body):
    answer, inputs = asked(body)
    assert (answer.status_code, inputs) == (400, None)
    assert len(answer.json()["message"]) < 300


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
    ],
)
def test_another_content_type_is_415_and_says_how(asked, content_type):
    answer, inputs = asked(IMAGE + PROMPT + END, {} if content_type is None else {"content-type": content_type})
    assert (answer.status_code, inputs) == (415, None)
    assert "curl -F" in answer.json()["message"]


@pytest.mark.parametrize("boundary", ["b" * 5000, "\\", '"', "b;c", "é".encode().decode("latin-1")])
def test_odd_boundaries_are_no_fault_of_the_gateway(asked, boundary):
    answer, _ = asked(
        IMAGE + PROMPT + END, {"content-type": f"multipart/form-data; boundary={boundary}".encode("latin-1")}
    )
    assert answer.status_code in (400, 415)


def test_nothing_lies_on_a_disk_while_a_form_is_read(asked, monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("os.open", refuse)
    content = bytes(2**22)
    _, inputs = asked(part(b"image", content) + PROMPT + END)
    assert inputs["image"] == content
