"""Which language is this name in? Names from the Unicode CLDR, in a file of ours."""

import gzip
from pathlib import Path
from typing import NamedTuple

import torch

from normbench.data.base import (
    Data,
    Fraction,
    Splits,
    Tokens,
    package_version,
    random_split,
)
from normbench.data.reading.cache import Parsed, cached
from normbench.data.reading.embedded import content_hash
from normbench.data.reading.texts import VocabSize, padded, trained_tokenizer

FORMAT = 1

FILE = Path(__file__).with_name("display_names.tsv.gz")
"""Made by scripts/make_display_names; LICENSE.unicode is its licence."""

# All in the Latin script, so that one character does not give the language away.
LANGUAGES = ("de", "en", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "sv", "tr")


class Name(NamedTuple):
    """What `language` calls one concept, such as ("territories", "DE")."""

    concept: tuple[str, str]
    language: str
    text: str


class DisplayNames(Data, name="display_names"):
    """Names of languages, territories, currencies and scripts in 12 languages.

    The label is the language. Texts that occur in more than one language are dropped; a
    concept, such as Germany, is in one part only, under all its names. Tokens are byte
    pairs learned from the training part: 0 is the pad, 1 a character that it lacks.
    Source: Unicode CLDR (Unicode License), as Babel 2.18.0 has it.
    """

    kind = Tokens
    known_content = "c229a2ae43a1c53b7e002befacb24f73"
    packages = ("tokenizers",)

    def __init__(
        self,
        *,
        vocab_size: VocabSize = 2000,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        fingerprint: str | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.fingerprint = fingerprint

    def hash_files(self) -> str:
        """Of the names; the byte pairs learned from them are those of `tokenizers`."""
        return content_hash(FORMAT, FILE)

    def load(self, seed: int) -> Tokens:
        """All names; `tokens` is as wide as the longest of them.

        Raises RequestError if the fractions leave a part empty, or if `vocab_size` is
        below the number of characters.
        """
        self.require_content(self.fingerprint)
        identity = {
            "format": FORMAT,
            "content": self.hash_files(),
            "tokenizers": package_version("tokenizers"),
            "seed": seed,
            **vars(self),
        }
        tensors = cached("display_names", identity, lambda: self._parse(seed)).tensors
        lengths = tensors["lengths"].long()
        return Tokens(
            tokens=padded(tensors["ids"], lengths),
            lengths=lengths,
            labels=tensors["labels"].long(),
            classes=LANGUAGES,
            vocab_size=self.vocab_size,
            pad=0,
            splits={part: tensors[part] for part in ("train", "val", "test")},
        )

    def _parse(self, seed: int) -> Parsed:
        names = distinct_names()
        splits = self._split(names, torch.Generator().manual_seed(seed))
        training = [names[i].text for i in splits["train"].sort().values.tolist()]
        tokenizer = trained_tokenizer(training, self.vocab_size)
        rows = [tokenizer.encode(name.text).ids for name in names]
        labels = [LANGUAGES.index(name.language) for name in names]
        return Parsed(
            {
                "ids": torch.tensor([i for row in rows for i in row]).int(),
                "lengths": torch.tensor([len(row) for row in rows]).int(),
                "labels": torch.tensor(labels).to(torch.uint8),
                **splits,
            }
        )

    def _split(self, names: list[Name], generator: torch.Generator) -> Splits:
        concepts = dict.fromkeys(name.concept for name in names)
        number = {concept: i for i, concept in enumerate(concepts)}
        parts = random_split(
            len(number),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=generator,
        )
        order = torch.randperm(len(names), generator=generator)
        concept = torch.tensor([number[name.concept] for name in names])[order]
        return {
            part: order[torch.isin(concept, chosen)] for part, chosen in parts.items()
        }


def distinct_names() -> list[Name]:
    """All names that belong to one language, each text once, sorted.

    Of several concepts that a language calls the same, the first has the text: no text
    is in two parts of a split.
    """
    lines = gzip.decompress(FILE.read_bytes()).decode().split("\n")[:-1]
    rows = (line.split("\t") for line in lines)
    return [Name((kind, code), language, text) for kind, code, language, text in rows]
