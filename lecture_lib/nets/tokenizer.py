"""Words to numbers: a word-level tokenizer with four special tokens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lecture_lib.errors import RangeError, ShapeError, UnknownNameError
from lecture_lib.tensors import check_count

SPECIAL = ("<pad>", "<start>", "<end>", "<mask>")
PAD, START, END, MASK = range(4)


class Tokenizer:
    """Texts as rows of whole numbers: <start>, one number per word, <end>, then <pad> up to a fixed length.

    The tokenizers of CLIP and T5 cut rare words into pieces; a world of a few dozen words needs none of that. Case is
    ignored, commas and full stops are dropped, and "" is the null text: <start><end>.

    Args:
        words: the vocabulary, lower-case, without repetitions; they follow the special tokens 0..3.
        length: numbers per text, <start> and <end> included.

    Raises:
        RangeError: a word twice, a word that encoding could never produce, or length < 2.
    """

    def __init__(self, words: Sequence[str], length: int = 24) -> None:
        self.length = check_count("length", length, 2)
        self.words = (*SPECIAL, *words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        wrong = [word for word in words if word in SPECIAL or _split(word) != [word]]
        if wrong or len(self.ids) < len(self.words):
            raise RangeError(f"words: got {wrong or 'some word twice'}, expected different single lower-case words")

    def __len__(self) -> int:
        """Size of the vocabulary, special tokens included: what ``TextEncoder`` is told."""
        return len(self.words)

    def encode(self, texts: str | Sequence[str]) -> Int[Tensor, " b n"]:
        """Texts as (b, length) int64; one text counts as a batch of one. The word "<mask>" is the special token.

        Raises:
            UnknownNameError: a word that is not in the vocabulary; the message offers those that look like it.
            ShapeError: no texts, or more words than fit.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ShapeError("texts: got none, expected at least one")
        return torch.tensor([self._row(text) for text in texts])

    def decode(self, tokens: Int[Tensor, " b n"]) -> list[str]:
        """The words of each row up to its <end>, joined by blanks; <start> and <pad> are left out.

        Raises:
            ShapeError: tokens are not (b, n).
            RangeError: a number outside the vocabulary.
        """
        if tokens.ndim != 2:
            raise ShapeError(f"tokens: got shape {tuple(tokens.shape)}, expected (b, n)")
        if tokens.numel() and not 0 <= tokens.min() <= tokens.max() < len(self):
            raise RangeError(f"tokens: got {int(tokens.min())}..{int(tokens.max())}, expected 0..{len(self) - 1}")
        return [self._text(row) for row in tokens.tolist()]

    def _row(self, text: str) -> list[int]:
        row = [START, *(self._id(word) for word in _split(text)), END]
        if len(row) > self.length:
            raise ShapeError(f"texts: got {len(row) - 2} words in {text!r}, expected at most {self.length - 2}")
        return row + [PAD] * (self.length - len(row))

    def _id(self, word: str) -> int:
        if word in self.ids and word not in ("<pad>", "<start>", "<end>"):
            return self.ids[word]
        near = difflib.get_close_matches(word, self.words[len(SPECIAL) :], n=3) or self.words[len(SPECIAL) :]
        raise UnknownNameError(f"texts: got the unknown word {word!r}, expected words such as {', '.join(near)}")

    def _text(self, row: list[int]) -> str:
        row = row[: row.index(END)] if END in row else row
        return " ".join(self.words[i] for i in row if i not in (PAD, START))


def _split(text: str) -> list[str]:
    return re.sub(r"[,.]", " ", text.lower()).split()
