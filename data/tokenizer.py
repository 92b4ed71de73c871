"""Byte-pair encoding: ranks trained here on the world's text,
text encoded by tiktoken with those ranks."""

import base64
import re
from collections import Counter, defaultdict

import tiktoken

END = "<|endoftext|>"
# words, numbers, punctuation, white space; each may bring its space
PATTERN = r" ?[^\W\d_]+| ?\d+| ?[^\s\w]+|_+|\s+"


def train_ranks(text, n):
    """Text -> {bytes: rank}, at most n of them: the 256 bytes, then the most frequent pair merged
    again and again."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    counts = Counter(re.findall(PATTERN, text))
    words = {word: [bytes([b]) for b in word.encode()] for word in counts}
    pairs, where = Counter(), defaultdict(set)     # how often each pair comes, and in which words

    def count(word, sign):
        for pair in zip(words[word], words[word][1:]):
            pairs[pair] += sign * counts[word]
            where[pair].add(word)
            if not pairs[pair]:
                del pairs[pair]

    for word in words:
        count(word, 1)
    while len(ranks) < n and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))     # ties by bytes: always the same
        ranks[best[0] + best[1]] = len(ranks)
        for word in where.pop(best):
            count(word, -1)
            words[word] = merge(words[word], best)
            count(word, 1)
    return ranks


def merge(word, pair):
    out, i = [], 0
    while i < len(word):
        if tuple(word[i:i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


class Tokenizer:
    """Text <-> token ids. The last id is the end-of-text token. Padding is id 0, whatever it means:
    the mask, not the id, says what counts (here it is the NUL byte, in GPT-2's vocabulary "!")."""

    def __init__(self, ranks, pattern=PATTERN):
        self.ranks, self.pattern, self.eot, self.vocab_size = (
            ranks, pattern, len(ranks), len(ranks) + 1)
        self.encoding = tiktoken.Encoding("world", pat_str=pattern, mergeable_ranks=ranks,
                                          special_tokens={END: len(ranks)})

    def encode(self, text):
        """Never yields the end-of-text token: in a text `<|endoftext|>` is thirteen
        characters like any others."""
        return self.encoding.encode_ordinary(text)

    def decode(self, ids):
        """Stops before the first end-of-text token."""
        ids = list(map(int, ids))
        return self.encoding.decode(ids[:ids.index(self.eot)] if self.eot in ids else ids,
                                    errors="replace")

    def state(self):
        """-> one string, tiktoken's file format: base64 of the bytes, a space, the rank."""
        lines = (f"{base64.b64encode(token).decode()} {rank}" for token, rank in self.ranks.items())
        return "\n".join([self.pattern, *lines])

    @classmethod
    def from_state(cls, state):
        pattern, *lines = state.splitlines()
        return cls({base64.b64decode(token): int(rank) for token, rank in map(str.split, lines)},
                   pattern)
