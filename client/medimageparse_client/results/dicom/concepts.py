"""Codes as DICOM data sets."""

from collections.abc import Iterable

from highdicom.sr.coding import CodedConcept
from medimageparse_contract.catalogue import Code


def concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)


def concepts(codes: Iterable[Code]) -> list[CodedConcept]:
    return [concept(code) for code in codes]
