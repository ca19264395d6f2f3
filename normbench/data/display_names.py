"""Names of languages, territories and the like, labelled with their language."""

import gzip
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from normbench.data.base import Data, Fraction, Splits, Tokens, random_split
from normbench.data.reading.cache import Parsed, cached, digest
from normbench.data.reading.embedded import content_hash, with_parsed
from normbench.data.reading.texts import VocabSize, packed, padded, trained_tokenizer

FORMAT = 1
KNOWN_TOKENS = "4854eea6c83a4d5da142fbf8a58e523f"
"""Hash of the tokens that the defaults and seed 0 give. Never change it."""

FILE = Path(__file__).with_name("display_names.tsv.gz")
"""scripts/make_display_names wrote this file; its licence is in LICENSE.unicode."""

# All use the Latin script, so that no single character reveals the language.
LANGUAGES = ("de", "en", "es", "fi", "fr", "hu", "it", "nl", "pl", "pt", "sv", "tr")


class Name(NamedTuple):
    """The name of a concept, such as ("territories", "DE"), in a language."""

    concept: tuple[str, str]
    language: str
    text: str


class DisplayNames(Data, name="display_names"):
    """Names of languages, territories, currencies and scripts in 12 languages.

    The label is the language. Texts that occur in several languages are dropped. All
    names of a concept, such as Germany, are in the same part. Tokens are byte pairs
    learned from the training part. Token 0 is the pad. Token 1 stands for a character
    that the training part lacks. Source: Unicode CLDR (Unicode License), from Babel
    2.18.0.
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
        """Hash the file, and the tokens that the defaults and seed 0 give."""
        tokens = digest({}, DisplayNames()._parsed(0).tensors)[:32]
        return with_parsed(content_hash(FORMAT, FILE), tokens, KNOWN_TOKENS)

    def load(self, seed: int) -> Tokens:
        """Return all names; `tokens` is as wide as the longest name.

        Raises RequestError if the fractions leave a part empty, or if `vocab_size` is
        smaller than the number of characters.
        """
        self.require_content(self.fingerprint)
        parsed = self._parsed(seed)
        tokens, lengths = padded(parsed)
        tensors = parsed.tensors
        return Tokens(
            tokens=tokens,
            lengths=lengths,
            labels=tensors["labels"].long(),
            classes=LANGUAGES,
            vocab_size=self.vocab_size,
            pad=0,
            splits={part: tensors[part] for part in ("train", "val", "test")},
        )

    def _parsed(self, seed: int) -> Parsed:
        """Return the result of `_parse`, from the cache if possible."""
        identity = {
            "format": FORMAT,
            "content": content_hash(FORMAT, FILE),
            "tokenizers": version("tokenizers"),
            "seed": seed,
            **vars(self),  # the options
        }
        return cached("display_names", identity, lambda: self._parse(seed))

    def _parse(self, seed: int) -> Parsed:
        names = distinct_names()
        splits = self._split(names, torch.Generator().manual_seed(seed))
        training = [names[i].text for i in splits["train"].sort().values.tolist()]
        tokenizer = trained_tokenizer(training, self.vocab_size)
        rows = [tokenizer.encode(name.text).ids for name in names]
        labels = [LANGUAGES.index(name.language) for name in names]
        tensors = {"labels": torch.tensor(labels).to(torch.uint8), **splits}
        return Parsed(packed(rows).tensors | tensors)

    def _split(self, names: list[Name], generator: torch.Generator) -> Splits:
        """Split the concepts, and assign each name to the part of its concept."""
        concepts = dict.fromkeys(name.concept for name in names)
        concept_index = {concept: i for i, concept in enumerate(concepts)}
        parts = random_split(
            len(concept_index),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            generator=generator,
        )
        order = torch.randperm(len(names), generator=generator)
        indices = torch.tensor([concept_index[name.concept] for name in names])[order]
        return {
            part: order[torch.isin(indices, chosen)] for part, chosen in parts.items()
        }


def distinct_names() -> list[Name]:
    """Return the names in the file, which are sorted.

    The file has no text twice. It lacks texts that occur in several languages. If a
    language has the same name for several concepts, the file has this name only for the
    first concept. Therefore no text is in two parts of a split.
    """
    lines = gzip.decompress(FILE.read_bytes()).decode().split("\n")[:-1]
    rows = (line.split("\t") for line in lines)
    return [Name((kind, code), language, text) for kind, code, language, text in rows]
