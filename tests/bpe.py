"""Byte-pair encoding by its definitions, and texts of many scripts to try it on."""

import itertools
import random
import unicodedata

import regex

SPACE = "\u2581"  # SentencePiece's
SCRIPTS = ((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF))
SCRIPTS += ((0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x3040, 0x30FF), (0x4E00, 0x9FFF))
SCRIPTS += ((0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0x2000, 0x206F), (0x300, 0x36F))
WRITTEN = [
    "Hello, world! It's 1,024\n\tna\u00efve caf\u00e9 \u65e5\u672c\u8a9e \U0001f600  x",
    "The year 2024 has 366 days; 3.14159 and 1e-10, 007.",
    "def f(x):\n    return x ** 2  # square\n\n\n\nclass A:\n\tpass\r\n\r\n",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 12345",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0661\u0662\u0663",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "e\u0301 a\u030a \u1e9etra\u00dfe \ufb01n \u216b \u00bd \u00b2",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
    "   leading, a  b   c    d trailing   ",
    "\n\n\n\t\t\ttabs\t\n \n",
    "I'll we've DON'T you'RE he'S 'tis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaa -------======*****",
    "<|endoftext|>text<|endoftext|>",
    "\u00a0nbsp\u2003em\u200bzero\x00\x01\x7f",
    "",
]


def texts(count=200):
    """What people write, and random characters of pairs of scripts."""
    random_state = random.Random(7)
    found = list(WRITTEN)
    while len(found) < count:
        scripts = [random_state.choice(SCRIPTS) for _ in range(2)]
        gaps = (" ", "  ", "\n", "\t", "1", "42", "'s", "")
        found.append(
            "".join(
                random_state.choice(gaps)
                + "".join(
                    chr(random_state.randint(*random_state.choice(scripts)))
                    for _ in range(random_state.randint(1, 9))
                )
                for _ in range(20)
            )
        )
    return found


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {  # as published with each model
    "gpt-2": lambda text: regex.findall(GPT2, text),
    "smollm": lambda text: [
        word
        for part in regex.split(r"(\p{N})", text)
        for word in ([part] if regex.fullmatch(r"\p{N}", part) else regex.findall(GPT2, part))
    ],
    "llama-bpe": lambda text: regex.findall(LLAMA3, text),
    "qwen2": lambda text: regex.findall(LLAMA3.replace("{1,3}", ""), text),
}


def byte_letters():
    """GPT-2's letter for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


LETTERS = byte_letters()


def joined(letters, ranks):
    """Pairs of the lowest rank, the leftmost first, until none is left."""
    pieces = list(letters)
    while len(pieces) > 1:
        pairs = [ranks.get(pair, 10**9) for pair in itertools.pairwise(pieces)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[at] == 10**9:
            break
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def ids_by_hand(text, pre, vocabulary, ranks, special):
    """Token ids, by the definition of byte-level BPE."""
    found = []
    for part in regex.split(f"({regex.escape(special)})", text):
        if part == special:
            found.append(vocabulary[special])
            continue
        if pre == "qwen2":
            part = unicodedata.normalize("NFC", part)
        for word in SPLITS[pre](part):
            letters = "".join(LETTERS[byte] for byte in word.encode())
            whole = pre == "llama-bpe" and letters in vocabulary
            pieces = [letters] if whole else joined(letters, ranks)
            found += [vocabulary[piece] for piece in pieces]
    return found


def encoder_by_score(entries):
    """SentencePiece's BPE by its definition: whole tokens first, then the pair of the best score.

    Args:
        entries: ``tokens``, ``scores`` and ``token_type`` of a GGUF file.

    Returns:
        A function from text to ids; of what no piece spells they are those of its bytes.
    """
    words = {word: number for number, word in enumerate(entries["tokens"])}
    kinds = entries["token_type"]
    scores = {word: entries["scores"][n] for word, n in words.items() if kinds[n] == 1}
    whole = sorted((w for w, n in words.items() if kinds[n] in (3, 4)), key=len, reverse=True)
    pattern = regex.compile("(" + "|".join(map(regex.escape, whole)) + ")")

    def ids(text):
        found = []
        for number, part in enumerate(pattern.split(text)):
            found += [words[part]] if number % 2 else joined_by_score(part)
        return found

    def joined_by_score(part):
        pieces = list(part.replace(" ", SPACE))
        while len(pieces) > 1:
            made = [first + second for first, second in itertools.pairwise(pieces)]
            found = [scores.get(one, -1e9) for one in made]
            at = max(range(len(made)), key=found.__getitem__)  # the first of equal ones
            if made[at] not in scores:
                break
            pieces[at : at + 2] = [made[at]]
        spelled = (
            [piece] if piece in scores else [f"<0x{byte:02X}>" for byte in piece.encode()]
            for piece in pieces
        )
        return [words[one] for piece in spelled for one in piece]

    return ids
