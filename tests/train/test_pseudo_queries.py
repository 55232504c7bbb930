"""Pseudo-queries: what is taken from prose and from code."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus
from ranksaga.data.words import word_count
from ranksaga.train.pseudo_queries import WINDOW, WORDS, PseudoQuery, pseudo_queries, sentences
from ranksaga.train.teacher import passages_of

PROSE = (
    "Aspirin lowers the risk of a second stroke in adults. Yes. "
    "A trial of two thousand patients found fewer events in the treated group."
)
CODE = '''def parseHeader(line):
    """Split a header line into name and value.

    Long story.
    """
    name, value = line.split(":")
    return name, value'''


def corpus(title: str, text: str) -> Corpus:
    return Corpus(("d",), (title,), (text,))


def test_prose_gives_its_title_and_its_sentences() -> None:
    found = pseudo_queries(corpus("Aspirin after stroke", PROSE), 10, np.random.default_rng(0))
    assert PseudoQuery("Aspirin after stroke", 0) in found
    sentences = [one for one in found if one.text != "Aspirin after stroke"]
    assert len(sentences) == 2  # "Yes." is too short to be a query
    for one in sentences:
        assert one.text in PROSE
        assert len(one.text.split()) == WINDOW or one.text.endswith((".", "group"))


def test_code_gives_the_docstrings_first_sentence_and_the_functions_name() -> None:
    found = pseudo_queries(corpus("", CODE), 10, np.random.default_rng(0))
    assert {one.text for one in found} == {"split a header line into name and value", "parse header"}


def test_the_draw_is_seeded_and_bounded() -> None:
    many = Corpus(tuple("abc"), ("", "", ""), (PROSE, PROSE, PROSE))
    draws = [pseudo_queries(many, 4, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert len(draws[0]) == 4
    assert draws[0] == draws[1] != draws[2]


def test_an_empty_document_gives_nothing() -> None:
    assert pseudo_queries(corpus("", ""), 10, np.random.default_rng(0)) == []


def english() -> Corpus:
    """Sixty documents of prose and code, drawn from a few sentences."""
    sentences = [
        "Aspirin lowers the risk of a second stroke in adults.",
        "Why does it matter?",
        "A trial of two thousand patients found fewer events  in the treated group!",
        "It isn't so . The café's naïve owner said that the results — odd as they are — hold for 95% of all cases.",
        "Short one.",
        "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six twenty-seven "
        "twenty-eight twenty-nine thirty thirty-one thirty-two thirty-three thirty-four thirty-five thirty-six.",
        "Line\nbreaks are blanks too, in this sentence of words…",
    ]
    code = (
        'def parseHeader(line):\n    """Split a header line into name and value. Then more.\n\n'
        '    Long story.\n    """\n    return line.split(":")'
    )
    rng = np.random.default_rng(5)
    titles, texts = [], []
    for row in range(60):
        titles.append(["", "Aspirin after stroke", "Two words"][row % 3])
        drawn = " ".join(sentences[place] for place in rng.permutation(len(sentences))[:4]) if row % 10 != 7 else code
        texts.append(drawn)
    return Corpus(tuple(map(str, range(60))), tuple(titles), tuple(texts))


def test_english_gives_what_it_gave_before_other_scripts_were_read() -> None:
    found = pseudo_queries(english(), 500, np.random.default_rng(3))
    joined = "\n".join(f"{one.document}|{one.text}" for one in found)
    before = "fd49d3ea6000a1a09950f45d49615b080f4ef2664f3c165b424c1fd92d871c0f"
    assert (len(found), hashlib.sha256(joined.encode()).hexdigest()) == (123, before)
    passages, rows = passages_of(english())
    before = "d38ba81d63513b4247c0a439c408fdde471cfe73c1ca14b6d9d867170aef30c5"
    assert hashlib.sha256("\n".join(passages).encode() + rows.tobytes()).hexdigest() == before


CHINESE = "阿司匹林可以降低成人再次中风的风险。真的吗？两千名患者的试验发现，治疗组的不良事件明显减少！“结果”仍需验证。"
SCRIPTS = {
    "Chinese": (CHINESE, ["阿司匹林可以降低成人再次中风的风险。", "两千名患者的试验发现，治疗组的不良事件明显减少！"]),
    "Japanese": (
        "「アスピリンは脳卒中の再発リスクを下げる。」と医師は述べた。はい。",
        ["「アスピリンは脳卒中の再発リスクを下げる。」"],
    ),
    "Hindi": (
        "एस्पिरिन वयस्कों में दूसरे आघात का जोखिम कम करती है।क्या? हाँ। परीक्षण में दो हज़ार मरीज़ शामिल थे।",
        ["एस्पिरिन वयस्कों में दूसरे आघात का जोखिम कम करती है।", "परीक्षण में दो हज़ार मरीज़ शामिल थे।"],
    ),
    "Urdu": (
        "اسپرین بالغوں میں دوسرے فالج کا خطرہ کم کرتی ہے۔ جی۔",
        ["اسپرین بالغوں میں دوسرے فالج کا خطرہ کم کرتی ہے۔"],
    ),
    "Thai": (
        "แอสไพรินช่วยลดความเสี่ยงของโรคหลอดเลือดสมอง การทดลองในผู้ป่วยสองพันคนพบเหตุการณ์น้อยลง",
        ["แอสไพรินช่วยลดความเสี่ยงของโรคหลอดเลือดสมอง การทดลองในผู้ป่วยสองพันคนพบเหตุการณ์น้อยลง"],
    ),
    "Amharic": (
        "አስፕሪን በሁሉም አዋቂዎች ላይ የሚመጣውን ሁለተኛ የደም ግፊት አደጋን ይቀንሳል። አዎ።",
        ["አስፕሪን በሁሉም አዋቂዎች ላይ የሚመጣውን ሁለተኛ የደም ግፊት አደጋን ይቀንሳል።"],
    ),
}


@pytest.mark.parametrize("language", SCRIPTS)
def test_sentences_of_other_scripts_are_pseudo_queries(language: str) -> None:
    text, expected = SCRIPTS[language]
    usable = [one for one in sentences(text) if WORDS[0] <= word_count(one) <= WORDS[1]]
    assert usable == expected
    found = [pseudo_queries(corpus("", text), 9, np.random.default_rng(seed)) for seed in range(8)]
    assert all(found)
    texts = {one.text for drawn in found for one in drawn}
    assert all(any(one in sentence for sentence in expected) for one in texts)
    assert len(texts) > len(expected)  # windows, too


def test_a_window_has_as_many_words_in_any_script() -> None:
    draws = [pseudo_queries(corpus("", CHINESE), 9, np.random.default_rng(seed)) for seed in range(20)]
    texts = {one.text for drawn in draws for one in drawn}
    windows = [one for one in texts if not one.endswith(("。", "！"))]
    assert windows
    assert {word_count(one) for one in windows} <= {WINDOW - 1, WINDOW, WINDOW + 1}
    assert word_count("阿司匹林可以降低") == 4
    assert word_count("ลดความเสี่ยง") == 2  # ten characters with their marks
    assert word_count("使用 Python 读取文件") == 4


def test_a_text_without_any_end_of_a_sentence_is_cut() -> None:
    old = corpus("", "天地玄黄宇宙洪荒日月盈昃辰宿列张" * 20)
    found = pseudo_queries(old, 9, np.random.default_rng(0))
    assert len(found) == 2
    assert all(word_count(one.text) <= WORDS[1] and one.text in old.texts[0] for one in found)


def test_chinese_titles_and_docstrings_count_by_their_characters() -> None:
    found = pseudo_queries(corpus("中风后的阿司匹林", "是的。"), 9, np.random.default_rng(0))
    assert found == [PseudoQuery("中风后的阿司匹林", 0)]
    code = 'def read_file(path):\n    """读取文件并返回内容。文件必须存在。"""\n    return open(path).read()'
    assert {one.text for one in pseudo_queries(corpus("", code), 9, np.random.default_rng(0))} == {
        "读取文件并返回内容",
        "read file",
    }


@pytest.mark.parametrize("text", ["red shoes", "红鞋", "รองเท้า"])
def test_documents_too_short_for_sentences_stand_for_themselves(text: str) -> None:
    assert pseudo_queries(corpus("", text), 9, np.random.default_rng(0)) == [PseudoQuery(text, 0)]


@pytest.mark.parametrize("text", ["", " \u3000\u00a0\u200b", "…!?。"])
def test_a_corpus_without_words_gives_none(text: str) -> None:
    assert pseudo_queries(corpus("", text), 9, np.random.default_rng(0)) == []


def test_passages_of_chinese_are_pairs_of_sentences() -> None:
    texts, rows = passages_of(corpus("", CHINESE))
    sentence = ["阿司匹林可以降低成人再次中风的风险。", "两千名患者的试验发现，治疗组的不良事件明显减少！"]
    assert texts == [" ".join(sentence)]  # the others have fewer than four words
    assert rows.tolist() == [0]
