"""Which cases are this process's, where several share a cohort."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from medimageparse_client.cohort.case import WrongCases

INDEX, COUNT = "JOB_COMPLETION_INDEX", "JOB_COMPLETION_COUNT"  # Kubernetes sets the first, a manifest the second


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` parts, from 0. A case stays in its part when others are added to the cohort."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise WrongCases(f"there is no shard {self.index} of {self.count}; they are 0 to {self.count - 1}")

    def __contains__(self, case_id: object) -> bool:
        return int.from_bytes(hashlib.sha256(str(case_id).encode()).digest()[:8], "big") % self.count == self.index

    @property
    def suffix(self) -> str:
        """What tells its tables apart from those of others; nothing where there is one shard."""
        return f"-{self.index}-of-{self.count}" if self.count > 1 else ""


def shard_of(text: str | None, count: int | None, environment: Mapping[str, str]) -> Shard:
    """--shard I/N; else --shards N with the index of an Indexed Job; else all.

    Raises WrongCases for an index without a count: then each process of a Job would ask for everything.
    """
    if text is not None:
        return Shard(*parts_of(text))
    index = environment.get(INDEX)
    told = environment.get(COUNT)
    if index is None:
        if count is not None:
            raise WrongCases(f"--shards says how many there are, and {INDEX} which this is; set it, or give --shard")
        return Shard()
    if count is None and told is None:
        raise WrongCases(f"{INDEX} is set and nothing says how many there are; give --shards N, or set {COUNT}")
    return Shard(number(index, INDEX), count if count is not None else number(str(told), COUNT))


def parts_of(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not slash:
        raise WrongCases("--shard is I/N, for example 0/3")
    return number(index, "--shard"), number(count, "--shard")


def number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise WrongCases(f"{name} is a whole number from 0")
    return int(text)
