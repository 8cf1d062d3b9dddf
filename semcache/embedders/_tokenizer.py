"""Texts to token ids, with the traps of the hub's tokenizer files switched off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from semcache.embedders.base import check_texts, utf8_length
from semcache.errors import EmbedderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST_WORD: Final = 100
"""A longer word is one unknown token to WordPiece, as in the reference implementation of BERT."""

CHARACTERS_PER_TOKEN: Final = 64
"""No text with more characters a token than this is taken to fit: that bounds the time spent on huge texts."""


class TextTokenizer:
    """The tokenizer of one model.

    Two settings that the hub's files carry are overruled. They pad every text to a fixed length (128 in those of
    MiniLM, which makes a short text cost ten times as much), and they read ``[SEP]`` in a user's text as the
    control token of that name.

    Args:
        path: A ``tokenizer.json``, or the ``vocab.txt`` of a BERT model.
        window: Most tokens that the model reads, its two control tokens included.
        lowercase: Whether a BERT vocabulary is of lower case; a ``tokenizer.json`` knows for itself.
    """

    def __init__(self, path: Path, *, window: int, lowercase: bool = True) -> None:
        try:
            tokenizer = _load(path, lowercase)
        except Exception as error:  # the library raises bare Exception for whatever is wrong with a file
            raise EmbedderError(f"cannot read the tokenizer {path}: {error}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(window)
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._window = window
        unknown = getattr(tokenizer.model, "unk_token", None)
        self._unknown = None if unknown is None else tokenizer.token_to_id(unknown)
        self._reads_ascii = _reads_ascii(tokenizer)
        self.pad_id: int = next((i for i in map(tokenizer.token_to_id, ("[PAD]", "<pad>")) if i is not None), 0)

    def encode(self, text: str) -> list[int]:
        """Token ids with control tokens, at most ``window`` of them."""
        check_texts([text])
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def reads(self, text: str) -> bool:
        """Whether the model reads the whole text: it is not cut off and has no unknown token."""
        if self._surely_reads(text):
            return True
        if len(text) > self._window * CHARACTERS_PER_TOKEN or utf8_length(text) is None:
            return False
        encoding = self._tokenizer.encode(text)
        return not encoding.overflowing and self._unknown not in encoding.ids

    def _surely_reads(self, text: str) -> bool:
        """Told without tokenising: an ASCII character makes one token at most, and only a long word is unknown."""
        if not self._reads_ascii or len(text) > self._window - 2 or not text.isascii():
            return False
        return len(text) <= LONGEST_WORD or all(len(word) <= LONGEST_WORD for word in text.split())


def _reads_ascii(tokenizer: Tokenizer) -> bool:
    """Whether this is a BERT tokenizer with a token for every printable ASCII character, alone and inside of a word."""
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer

    if not isinstance(tokenizer.model, WordPiece) or not isinstance(tokenizer.normalizer, BertNormalizer):
        return False
    for code in range(33, 127):
        token = tokenizer.normalizer.normalize_str(chr(code))
        if tokenizer.token_to_id(token) is None or (token.isalnum() and tokenizer.token_to_id(f"##{token}") is None):
            return False
    return True


def _load(path: Path, lowercase: bool) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    if path.suffix == ".json":
        return Tokenizer.from_file(str(path))
    model = WordPiece.from_file(str(path), unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return tokenizer
