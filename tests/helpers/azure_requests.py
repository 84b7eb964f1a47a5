"""Bodies of /score as Azure's samples write them."""

import base64


def table_of(*files, text="liver & spleen", **more):
    """A body with a row for each file. text: of all, or a list of one for each; more: further members."""
    texts = [text] * len(files) if isinstance(text, str) else text
    rows = [[base64.encodebytes(file).decode(), words] for file, words in zip(files, texts, strict=True)]
    return {"input_data": {"columns": ["image", "text"], "data": rows}, **more}
