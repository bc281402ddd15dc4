"""Makes Nano's SentencePiece unigram model: python3 training/make_tokenizer.py OUT.model

Each word of the captions is one piece, scored by its frequency; printable characters and bytes carry every other text, which then
means little to Nano. The trainer provides normaliser, byte pieces and settings; its own pieces are replaced, because on so small a
language it prefers shared fragments ("b" + "all") to words.
"""
import collections
import math
import os
import re
import struct
import sys
import tempfile

import numpy as np
import sentencepiece

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import world  # noqa: E402


def corpus(count=30000, seed=3):
    rng = np.random.default_rng(seed)
    for i in range(count):
        yield world.caption(rng, world.draw_scene(rng, 2 if i % 8 == 7 else 1, held=None))


def main(path):
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "captions.txt")
        with open(text, "w") as file:
            file.writelines(line + "\n" for line in corpus())
        sentencepiece.SentencePieceTrainer.train(
            f"--input={text} --model_prefix={folder}/spiece --vocab_size=700 --model_type=unigram --byte_fallback=true --normalization_rule_name=nmt_nfkc "
            "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1 --hard_vocab_limit=false --character_coverage=1.0 --num_threads=1 --minloglevel=2")
        with open(os.path.join(folder, "spiece.model"), "rb") as file:
            model = file.read()
    counts = collections.Counter(word for line in corpus() for word in re.findall(r"\w[\w-]*|[^\w\s]", line))
    total = sum(counts.values())
    pieces = [message for number, message in fields(model) if number == 1]
    kept = [piece for piece in pieces if any(number == 3 for number, _ in fields(piece))]  # control, unknown, bytes: all that have a type
    words = {"▁" + word: math.log(count / total) for word, count in counts.most_common() if word[0].isalnum()}
    letters = {chr(code): -12.0 for code in range(33, 127)} | {"▁": -11.0}
    letters |= {word: math.log(counts[word] / total) for word in counts if not word[0].isalnum()}
    made = [tagged(1, piece.encode()) + b"\x15" + struct.pack("<f", score) for piece, score in {**words, **letters}.items()]
    with open(path, "wb") as file:
        file.write(b"".join(tagged(1, piece) for piece in kept + made))
        file.write(b"".join(tagged(number, message) for number, message in fields(model) if number != 1))


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    """(number, bytes or value) of a protobuf message."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 2:
            size, at = varint(data, at)
            found.append((key >> 3, data[at:at + size]))
            at += size
        elif key & 7 == 5:
            found.append((key >> 3, data[at:at + 4]))
            at += 4
        else:
            value, at = varint(data, at)
            found.append((key >> 3, value))
    return found


def tagged(number, message):
    size, text = len(message), b""
    while size > 127:
        text, size = text + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + text + bytes([size]) + message


if __name__ == "__main__":
    main(sys.argv[1])
