"""Words in any script, against what Unicode and Lucene's documentation say."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from ranksaga.data.words import atoms, folded, is_lone_character, is_unspaced, tokens, word_count

ASCII = "The DNA-repair of 1,500 read_json files: it's O(n^2), isn't it? \t\n"


def test_ascii_is_cut_at_all_that_is_no_letter_or_digit() -> None:
    by_hand = [
        "the",
        "dna",
        "repair",
        "of",
        "1",
        "500",
        "read",
        "json",
        "files",
        "it",
        "s",
        "o",
        "n",
        "2",
        "isn",
        "t",
        "it",
    ]
    assert tokens(ASCII) == by_hand
    # An accented word elsewhere changes nothing for the others.
    assert tokens(ASCII + " café") == [*by_hand, "café"]


# What Lucene's tests of CJKBigramFilter and CJKAnalyzer expect.
LUCENE = {
    "一二三四五六七八九十": ["一二", "二三", "三四", "四五", "五六", "六七", "七八", "八九", "九十"],
    "一 二三四 五六七八九 十": ["一", "二三", "三四", "五六", "六七", "七八", "八九", "十"],
    "多くの学生が試験に落ちた。": [
        *["多く", "くの", "の学", "学生", "生が", "が試", "試験", "験に", "に落", "落ち", "ちた"],
    ],
    "あいうえおabcかきくけこ": ["あい", "いう", "うえ", "えお", "abc", "かき", "きく", "くけ", "けこ"],
    "안녕하세요 한글입니다": ["안녕", "녕하", "하세", "세요", "한글", "글입", "입니", "니다"],
    "ｱﾝﾀﾞﾙｼｱ ＴＥＳＴ": ["アン", "ンダ", "ダル", "ルシ", "シア", "test"],
    "コーヒー": ["コー", "ーヒ", "ヒー"],
    "𩬅艱鍟䇹愯瀛": ["𩬅艱", "艱鍟", "鍟䇹", "䇹愯", "愯瀛"],
}


@pytest.mark.parametrize("text", LUCENE)
def test_pairs_of_characters_are_lucenes(text: str) -> None:
    assert tokens(text) == LUCENE[text]


def test_a_character_keeps_its_marks() -> None:
    # Thai: a consonant with a vowel sign and a tone mark is one character of a pair.
    assert tokens("ที่นี่") == ["ที่นี่"]
    assert tokens("ไทย") == ["ไท", "ทย"]
    assert tokens("हिन्दी में") == ["हिन्दी", "में"]
    assert tokens("မြန်မာ") == ["မြန်", "န်မာ"]
    assert tokens("ພາສາລາວ") == ["ພາ", "າສ", "ສາ", "າລ", "ລາ", "າວ"]
    assert tokens("ភាសាខ្មែរ") == ["ភាសា", "សាខ្", "ខ្មែ", "មែរ"]


SAME = {
    "composed or not": ("Crème Brûlée à la française", unicodedata.normalize("NFD", "crème brûlée à la française")),
    "Vietnamese": ("Tiếng Việt", unicodedata.normalize("NFD", "tiếng việt")),
    "Hangul in parts": ("한국어", unicodedata.normalize("NFD", "한국어")),
    "full width": ("ＡＢＣ　１２３", "abc 123"),
    "ligatures": ("ﬁne ﬂow", "fine flow"),
    "sharp s": ("GROSSE STRASSE", "große straße"),
    "final sigma": ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
    "dotted capital": ("İstanbul", "istanbul"),
    "dotted capital in parts": ("I\u0307zmir", "izmir"),
    "Arabic digits": ("عام ٢٠٢٤", "عام 2024"),
    "Devanagari digits": ("१९४७", "1947"),
    "Thai digits": ("๑๒๓", "123"),
    "Arabic vowel signs": ("كَتَبَ الْوَلَدُ", "كتب الولد"),
    "tatweel": ("كتـــاب", "كتاب"),
    "Arabic ligature": ("\ufefb", "لا"),
    "Hebrew points": ("שָׁלוֹם", "שלום"),
    "Persian joiner": ("می\u200cخواهم", "می خواهم"),
    "Indic joiners": ("क्\u200dष", "क्ष"),
    "soft hyphen": ("Donau\u00addampf", "Donaudampf"),
    "byte order mark": ("\ufeffword", "word"),
    "marks of direction": ("\u200eabc\u200f é", "abc é"),
    "variation selector": ("葛\ufe00飾", "葛飾"),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_read_the_same_is_the_same(kind: str) -> None:
    left, right = SAME[kind]
    assert tokens(left) == tokens(right)
    assert tokens(left)


def test_turkish_has_two_letters_i() -> None:
    assert tokens("ISPARTA İZMİR", turkic=True) == ["ısparta", "izmir"]
    assert tokens("ısparta izmir", turkic=True) == ["ısparta", "izmir"]
    assert tokens("ISPARTA") == ["isparta"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "\u00a0\u2003\u3000\u200b\u2028",
        "…!? — «»",
        "。！？、「」",
        "🙂👍🏽❤️",
        "\u0301\u0308",
        "\u00ad\u200d\ufe0f",
        "_＿‿",
    ],
)
def test_no_word_is_in_marks_blanks_punctuation_and_emoji(text: str) -> None:
    assert tokens(text) == []


def test_every_letter_and_digit_of_unicode_is_in_a_token_and_nothing_else_is() -> None:
    """By ``unicodedata``, each character between blanks."""
    skipped = set("\u0640\u06e5\u06e6\u0345")  # signs of Arabic, letters by name only; a mark that folds to iota
    letters: list[str] = []
    others: list[str] = []
    for code in range(sys.maxunicode + 1):
        sign = chr(code)
        category = unicodedata.category(sign)
        if category in ("Cs", "Cn") or sign in skipped or unicodedata.normalize("NFKC", sign) != sign:
            continue
        (letters if category[0] in "LN" else others).append(sign)
    assert len(letters) > 100_000
    assert len(tokens(" ".join(letters))) == len(letters)
    assert tokens(" ".join(others)) == []


def test_folding_is_stable() -> None:
    for text in (ASCII, *(one for pair in SAME.values() for one in pair), *LUCENE):
        assert folded(folded(text)) == folded(text)


def test_sizes_in_words_where_blanks_part_them_and_in_characters_elsewhere() -> None:
    assert word_count("two words") == word_count("zwei Wörter") == word_count("두 단어") == 2
    assert word_count("四个汉字") == word_count("ひらがな") == 2
    assert word_count("ลดความเสี่ยง") == 2
    assert not is_unspaced("한국어 déjà vu")
    assert is_unspaced("read 文件")
    assert atoms("用 Python 读") == ["用 ", "Python ", "读"]
    assert "".join(atoms("ที่นี่ 12 ok")) == "ที่นี่ 12 ok"


def test_a_lone_character_stands_for_the_pairs_it_is_in() -> None:
    assert is_lone_character("猫")
    assert is_lone_character("ที่")
    assert not is_lone_character("猫が")
    assert not is_lone_character("é")
