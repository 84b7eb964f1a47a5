"""The words that a checkpoint was trained on, where a file beside its graphs lists them, as for the demo.

A checkpoint of few words takes an unknown structure for one that it knows: "gall bladder" for the bladder.
"""

from collections.abc import Iterable
from pathlib import Path

FILE = "known_words.txt"  # a word a line, in small letters
DOUBT = (
    "this checkpoint was not trained on all words of {}, so what is found there may be another structure; ask for what "
    "it knows: its maker lists it, for the demo the last lines of make demo"
)


def read_words(folder: Path) -> frozenset[str]:
    """Empty where no file lists them: every word may be known."""
    file = folder / FILE
    return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()


def doubts(prompts: Iterable[str], known: frozenset[str]) -> list[str]:
    """A warning that names, by number, the prompts with a word that is none of those."""
    new = [str(n) for n, prompt in enumerate(prompts, 1) if known and not known.issuperset(words_of(prompt))]
    return [DOUBT.format(f"prompt{'s' * (len(new) > 1)} {', '.join(new)}")] if new else []


def words_of(prompt: str) -> list[str]:
    """Letters and digits that hang together, in small letters."""
    return "".join(letter if letter.isalnum() else " " for letter in prompt.casefold()).split()
