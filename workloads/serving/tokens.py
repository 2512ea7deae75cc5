"""A tokenizer made on the spot, of any vocabulary: byte-level BPE whose words are letters after a space.

Nothing is downloaded and nothing is trained. After the 256 bytes come " a" … " z", " aa", " ab", … until the
vocabulary is full; each is made of the one before it and a letter, so that a word of the table is always exactly one
token: a prompt of so many tokens is so many words. Every token but the bytes above ASCII is a whole piece of text.
"""

import random
import string
from itertools import count, product
from typing import Any

BYTES = 256
SPACE = "Ġ"
"""How byte-level BPE writes a space."""
WORD_LETTERS = 2
"""Letters of a prompt's words: the smallest vocabulary, 1,024, holds all 676 of them."""


def words(vocabulary: int) -> tuple[str, ...]:
    """The table's words, without their space, in order: as many as the vocabulary has room for."""
    found: list[str] = []
    for letters in count(1):
        for word in product(string.ascii_lowercase, repeat=letters):
            if len(found) == vocabulary - BYTES:
                return tuple(found)
            found.append("".join(word))
    raise AssertionError("unreachable: count() does not end")


def tokenizer(vocabulary: int) -> Any:
    """The tokenizer, as transformers has them.

    Raises:
        ValueError: the vocabulary cannot hold the words of a prompt.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if vocabulary < BYTES + 26 + 26**WORD_LETTERS:
        raise ValueError(f"a vocabulary of {vocabulary} is too small for words of {WORD_LETTERS} letters")
    table = {sign: index for index, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in words(vocabulary):
        token = SPACE + word
        merges.append((token[:-1], token[-1]))
        table[token] = len(table)
    made = Tokenizer(models.BPE(vocab=table, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    whole = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32768)
    whole.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return whole


def unreadable(made: Any) -> list[int]:
    """Tokens that are no whole piece of text: the bytes above ASCII. A stream would hold them back for more."""
    return [index for index in range(BYTES) if "\ufffd" in made.decode([index])]


def prompt(count_of: int, seed: int) -> str:
    """Text of exactly so many tokens, another for each seed."""
    draw = random.Random(seed)
    return "".join(f" {draw.choice(string.ascii_lowercase)}{draw.choice(string.ascii_lowercase)}"
                   for _ in range(count_of))  # fmt: skip
