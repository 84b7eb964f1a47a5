"""multipart/form-data as it comes in: one file and some short texts, all in memory, nothing on disk."""

from collections.abc import Collection
from dataclasses import dataclass, field

import multipart
from starlette.requests import Request

from medimageparse_gateway.errors import HttpError

LONGEST_PART = 2**16  # bytes of all that is not the file; the models take as much text
MOST_PARTS = 2**10
FORM = "send multipart/form-data with a file in the part image: curl -F image=@FILE -F prompt=liver"


@dataclass
class Form:
    """image: the file's bytes; prompts: in their order; options: name -> value."""

    image: bytearray = field(default_factory=bytearray)
    prompts: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)


async def read_form(request: Request, options: Collection[str]) -> Form:
    """The form of a request, with those options and no others; HttpError says what to send instead."""
    kind, parameters = multipart.parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not parameters.get("boundary"):
        raise HttpError(415, FORM)
    reader = FormReader(options)
    try:
        parser = multipart.PushMultipartParser(parameters["boundary"], max_segment_count=MOST_PARTS, strict=True)
        async for chunk in request.stream():
            if chunk and parser._state is not multipart._COMPLETE:  # behind the end nothing counts; only this tells it
                reader.read(parser.parse(chunk))
        parser.close()
    except (multipart.MultipartError, ValueError):  # its words may hold the caller's
        raise HttpError(400, f"the form is damaged, or has over {MOST_PARTS} parts; {FORM}") from None
    return reader.form_of()


class FormReader:
    """Puts the parts together as their pieces come."""

    def __init__(self, options: Collection[str]) -> None:
        self.form, self.options = Form(), options
        self.texts: list[tuple[str, bytearray]] = []
        self.n_images = self.n_text_bytes = 0
        self.part = bytearray()  # that is being read

    def read(self, events: "multipart.t_ParserEvents") -> None:
        for event in events:
            if isinstance(event, multipart.MultipartSegment):
                self.begin(event.name or "")
            elif event:
                self.add(event)

    def begin(self, name: str) -> None:
        if name == "image":
            self.n_images += 1
            if self.n_images > 1:
                raise HttpError(400, "the form has more than one image; send one request for each")
            self.part = self.form.image
            return
        if name not in ("prompt", *self.options):
            raise HttpError(
                400, f"the form has an unknown part; known are {', '.join(('image', 'prompt', *self.options))}"
            )
        self.part = bytearray()
        self.texts.append((name, self.part))

    def add(self, piece: bytes | bytearray) -> None:
        if self.part is not self.form.image:
            self.n_text_bytes += len(piece)
            if self.n_text_bytes > LONGEST_PART:
                raise HttpError(400, f"prompts and options are over {LONGEST_PART} bytes; ask for fewer")
        self.part += piece

    def form_of(self) -> Form:
        if not self.form.image:
            raise HttpError(400, f"the form has no image; {FORM}")
        for name, content in self.texts:
            try:
                text = content.decode()
            except UnicodeDecodeError:
                raise HttpError(400, f"a part {name} is not UTF-8 text") from None
            if name == "prompt":
                self.form.prompts.append(text)
            elif name in self.form.options:
                raise HttpError(400, f"the form has more than one {name}")
            else:
                self.form.options[name] = text
        return self.form
