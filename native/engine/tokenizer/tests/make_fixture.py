#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizer: a small SentencePiece unigram model and what the original library encodes with it.

Needs spm_train and spm_encode (Debian package `sentencepiece`). Run from the repository root:
    python3 native/engine/tokenizer/tests/make_fixture.py tests/fixtures/tokenizer
With `--lines N FILE` it only writes N varied lines to FILE, for a larger comparison by hand.
"""
import argparse
import pathlib
import random
import subprocess
import tempfile
import unicodedata

SUBJECTS = "ball cube cat dog robot ship fish bird child painter dancer horse drone lantern river kite train balloon wolf tree".split()
COLOURS = "red blue green yellow purple orange white black golden silver crimson turquoise".split()
VERBS = "bounces rolls swims flies runs dances turns glides spins walks floats jumps rises falls sparkles".split()
PLACES = "a blue floor|the open sea|a quiet street|the surface of the moon|a wooden table|an old library|tall grass|a crowded market|the night sky|a glass bridge".split("|")
STYLES = "cinematic lighting|shot on 35mm film|slow motion|watercolour painting|a close-up|time-lapse|from a bird's-eye view|black and white|soft focus|4k, highly detailed".split("|")
OTHER = [
    "Ein roter Ball springt über den blauen Fußboden, während es draußen regnet.",
    "Une balle rouge rebondit sur le sol bleu; l'été, à Paris, près d'une forêt.",
    "Una pelota roja rebota en el suelo azul, ¿verdad? ¡Sí! El niño corre mañana.",
    "Красный мяч прыгает по синему полу, а кошка смотрит в окно.",
    "一个红色的球在蓝色的地板上弹跳，电影般的光线，高清。",
    "镜头缓慢推进，一只小猫在草地上奔跑，阳光明媚。",
    "赤いボールが青い床の上で弾む。夕焼けの海辺を犬が走っている。",
    "빨간 공이 파란 바닥에서 튀어 오른다. 고양이가 창밖을 본다.",
    "كرة حمراء تقفز على أرضية زرقاء والقط ينظر من النافذة.",
    "एक लाल गेंद नीले फर्श पर उछलती है और बिल्ली देखती है।",
    "Μια κόκκινη μπάλα αναπηδά στο μπλε πάτωμα.",
    "ลูกบอลสีแดงเด้งบนพื้นสีฟ้า",
    "כדור אדום קופץ על רצפה כחולה.",
]
EMOJI = ["🎈", "🐈", "👩‍🚀", "🏳️‍🌈", "👍🏽", "🇩🇪", "🌊", "❤️", "🎬"]
SPACES = [" ", "  ", "\t", "\u00a0", "\u2003", "\u3000", "\u200b", "\u202f", "\ufeff", "\u2028", "\u0085"]
ODD = ["\u0301", "\u0308", "\u200d", "\u200e", "\u00ad", "\x01", "\x07", "\x0b", "\x1b", "\x7f", "\u0000", "\ufffd", "\u2581", "\ufdfa", "\uff21", "\uff76\uff9e", "\u3392",
       "\ufb01", "\u2460", "\u00bd", "\u2126", "\u212b", "\u1e9b\u0323", "<extra_id_0>", "<extra_id_1>", "<sep>", "</s>", "<pad>", "<unk>", "<0x41>", "<extra_id_", "\u2581\u2581"]


def prompt(rng):
    parts = [f"{rng.choice(['a', 'the', 'one', 'A', 'The', 'two'])} {rng.choice(COLOURS)} {rng.choice(SUBJECTS)} {rng.choice(VERBS)} "
             f"{rng.choice(['on', 'over', 'through', 'beside', 'above'])} {rng.choice(PLACES)}"]
    parts += rng.sample(STYLES, rng.randint(0, 3))
    return ", ".join(parts) + rng.choice(["", ".", "!", " ..."])


def any_character(rng):
    while True:
        plane = rng.choice([(0x20, 0x17f), (0x300, 0x1fff), (0x2000, 0x33ff), (0x3400, 0x9fff), (0xa000, 0xd7ff), (0xe000, 0xffff), (0x10000, 0x1ffff), (0x20000, 0x10ffff)])
        code = rng.randint(*plane)
        if not 0xd800 <= code <= 0xdfff:
            return chr(code)


def line(rng):
    kind = rng.randrange(12)
    if kind < 2:
        return prompt(rng)
    if kind == 2:
        return rng.choice(OTHER)
    if kind == 3:
        return unicodedata.normalize(rng.choice(["NFD", "NFC", "NFKD"]), rng.choice(OTHER))
    if kind == 4:  # full width
        return "".join(chr(ord(c) + 0xfee0) if "!" <= c <= "~" and rng.random() < 0.7 else c for c in prompt(rng))
    if kind == 5:  # spaces of every sort, also at both ends
        return "".join(rng.choice(SPACES) * rng.randint(0, 3) + w for w in prompt(rng).split()) + rng.choice(SPACES) * rng.randint(0, 3)
    if kind == 6:
        return "".join(any_character(rng) for _ in range(rng.randint(1, 40)))
    if kind == 7:
        words = prompt(rng).split()
        for _ in range(rng.randint(1, 6)):
            words.insert(rng.randrange(len(words) + 1), rng.choice(EMOJI + ODD))
        return rng.choice(["", " "]).join(words)
    if kind == 8:  # combining marks in the middle of words
        return "".join(c + (rng.choice(["\u0301", "\u0308", "\u0327", "\u0323\u0301", ""]) if c.isalpha() else "") for c in prompt(rng))
    if kind == 9:
        return "".join(rng.choice(ODD + SPACES + ["a", "b", "1", "-", "é"]) for _ in range(rng.randint(0, 25)))
    if kind == 10:
        return rng.choice(["", prompt(rng).upper(), "a" * rng.randint(1, 300), "12345 67.89% $4,000 1e-5 #tag @me http://example.org/?a=b&c=d",
                           "x" + "\u0301" * rng.randint(1, 40), "ab" * rng.randint(1, 99), "<b>bold</b> &amp; it's \"quoted\" 'too'"])
    return " ".join(rng.choice(OTHER)[rng.randrange(10):rng.randrange(10, 30)] for _ in range(rng.randint(1, 4)))


def lines(count, seed):
    rng = random.Random(seed)
    return [line(rng).replace("\n", " ") for _ in range(count)]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lines", type=int)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("target")
    options = arguments.parse_args()
    target = pathlib.Path(options.target)
    if options.lines:
        target.write_bytes("".join(text + "\n" for text in lines(options.lines, options.seed)).encode())
        return
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder, "corpus.txt")
        corpus.write_text("".join((prompt(rng) if rng.random() < 0.9 else rng.choice(OTHER)) + "\n" for _ in range(6000)), encoding="utf-8")
        subprocess.run(["spm_train", f"--input={corpus}", f"--model_prefix={folder}/spiece", "--vocab_size=2000", "--model_type=unigram", "--byte_fallback",
                        "--normalization_rule_name=nmt_nfkc", "--pad_id=0", "--eos_id=1", "--unk_id=2", "--bos_id=-1", "--hard_vocab_limit=false",
                        "--character_coverage=0.99", "--user_defined_symbols=<extra_id_0>,<extra_id_1>", "--control_symbols=<sep>", "--num_threads=1",
                        "--minloglevel=2"], check=True)
        (target / "spiece.model").write_bytes(pathlib.Path(folder, "spiece.model").read_bytes())
    text = "".join(t + "\n" for t in lines(800, options.seed)).encode()
    # A few lines that are not UTF-8 at all.
    text += b"caf\xe9 au lait\n\xff\xfe\xc0\x80 \xed\xa0\x80 ok\n\xf0\x9f\x8e\n\xe4\xb8\n\x80\n"
    (target / "lines.txt").write_bytes(text)
    ids = subprocess.run(["spm_encode", f"--model={target}/spiece.model", "--output_format=id"], input=text, check=True, capture_output=True).stdout
    (target / "ids.txt").write_bytes(ids)
    print(len(text.splitlines()), "lines,", len(ids.split()), "tokens")


main()
