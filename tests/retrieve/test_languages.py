"""BM25 beyond English: each language's corpus is hand-made, the expected ranking is by reading."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from typing import Literal

import numpy as np
import pytest

from ranksaga.data.dataset import Corpus, Dataset, Queries
from ranksaga.retrieve.languages import Analyzer
from ranksaga.retrieve.lexical import LexicalIndex, bm25_rankings

# Documents of a language, and a query for each of them in order.
LANGUAGES: dict[str, tuple[list[str], list[str]]] = {
    "chinese": (
        ["北京是中华人民共和国的首都。", "猫喜欢在阳光下睡觉。", "量子计算机使用量子比特。", "他每天早上喝绿茶。"],
        ["中国的首都北京", "猫睡觉", "什么是量子计算机", "茶"],
    ),
    "japanese": (
        ["東京は日本の首都です。", "猫はひなたで眠るのが好きです。", "コンピューターの速度を測る。"],
        ["日本の首都", "眠る猫", "ｺﾝﾋﾟｭｰﾀｰ"],
    ),
    "korean": (
        ["서울은 대한민국의 수도이다.", "고양이가 햇볕에서 잠을 잔다.", "양자 컴퓨터는 큐비트를 사용한다."],
        ["대한민국 수도", "고양이는", "양자컴퓨터"],
    ),
    "thai": (
        ["กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "แมวชอบนอนกลางแดด", "คอมพิวเตอร์ควอนตัมใช้คิวบิต"],
        ["เมืองหลวงของไทย", "แมวนอน", "ควอนตัม"],
    ),
    "lao": (["ວຽງຈັນແມ່ນນະຄອນຫຼວງຂອງລາວ", "ແມວມັກນອນກາງແດດ"], ["ນະຄອນຫຼວງ", "ແມວນອນ"]),
    "khmer": (["ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា", "ឆ្មាចូលចិត្តគេងក្រោមពន្លឺថ្ងៃ"], ["រាជធានី", "ឆ្មាគេង"]),
    "burmese": (["နေပြည်တော်သည်မြန်မာနိုင်ငံ၏မြို့တော်ဖြစ်သည်", "ကြောင်များသည်နေပူဆာလှုံရတာကြိုက်တယ်"], ["မြန်မာမြို့တော်", "ကြောင်"]),
    "hindi": (
        ["दिल्ली भारत की राजधानी है और यह बड़ा शहर है।", "लड़की के पास एक किताब है।", "दूध से दही बनता है।"],
        ["राजधानी दिल्ली", "लड़कियों की किताबें", "दही"],
    ),
    "arabic": (
        ["القاهرة هي عاصمة مصر على نهر النيل", "كَتَبَ الطالب رسالة إلى المعلم", "القط ينام تحت شمس الصباح"],
        ["عاصمة مصر", "كتب رسالة", "الشمس"],
    ),
    "persian": (
        ["تهران پایتخت ایران است و در این کشور قرار دارد", "من این کتاب‌ها را در خانه می‌خوانم", "گربه در آفتاب است"],
        ["پايتخت", "کتاب", "گربه‌ها"],
    ),
    "hebrew": (["יְרוּשָׁלַיִם היא בירת ישראל", "החתול ישן בשמש"], ["ירושלים", "החתול"]),
    "russian": (
        ["Москва это столица России и самый большой город", "Кошки любят спать на солнце", "В книге не было картинок"],
        ["столицы", "кошка", "книги с картинками"],
    ),
    "ukrainian": (["Київ є столицею України, що на Дніпрі", "Кіт спить на сонці"], ["столицею", "кіт"]),
    "greek": (
        ["Η Αθήνα είναι η πρωτεύουσα της Ελλάδας", "Οι γάτες κοιμούνται στον ήλιο και το φως", "Διαβάζω μια εφημερίδα"],
        ["ΑΘΉΝΑ", "γάτα", "τις εφημερίδες"],
    ),
    "french": (
        ["Paris est la capitale de la France.", "Les chats aiment dormir au soleil.", "L'élève a mangé des crêpes."],
        ["capitales françaises de France", "le chat", "l'élève mange une crêpe"],
    ),
    "german": (
        [
            "Berlin ist die Hauptstadt von Deutschland.",
            "Die Katzen schlafen in der Sonne.",
            "Das ist eine große Straße.",
        ],
        ["Hauptstädte", "Katze", "STRASSEN"],
    ),
    "spanish": (
        ["Madrid es la capital de España.", "Los gatos duermen al sol.", "El niño leyó un libro en la escuela."],
        ["las capitales", "gato", "niños y libros"],
    ),
    "turkish": (
        [
            "Ankara Türkiye'nin başkentidir ve çok büyük bir şehirdir.",
            "Kediler güneşte uyumak için bir yer arar.",
            "ISPARTA gülleri ile ünlü",
        ],
        ["başkentidir", "kedi", "ısparta"],
    ),
    "finnish": (
        ["Helsinki on Suomen pääkaupunki ja se on suuri.", "Kissat ovat auringossa, mutta ei koira."],
        ["pääkaupunkia", "kissa"],
    ),
    "vietnamese": (
        ["Hà Nội là thủ đô của Việt Nam và các tỉnh.", "Con mèo không ngủ trong nắng.", "Anh ấy uống trà."],
        ["thủ đô", "mèo", "trà"],
    ),
}


def dataset(documents: list[str], queries: list[str]) -> Dataset:
    ids = tuple(f"d{row}" for row in range(len(documents)))
    asked = Queries(tuple(f"q{row}" for row in range(len(queries))), tuple(queries))
    return Dataset("tiny", Corpus(ids, ("",) * len(ids), tuple(documents)), asked, {})


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_query_finds_its_document_first(language: str, form: Literal["NFC", "NFD", "NFKD"]) -> None:
    documents, queries = LANGUAGES[language]
    data = dataset(documents, [unicodedata.normalize(form, query) for query in queries])
    found = bm25_rankings(data, np.arange(len(queries), dtype=np.int32))
    assert found.documents[:, 0].tolist() == list(range(len(queries)))


@pytest.mark.parametrize(
    "language",
    [
        "hindi",
        "arabic",
        "persian",
        "russian",
        "ukrainian",
        "greek",
        "french",
        "german",
        "spanish",
        "turkish",
        "finnish",
        "vietnamese",
    ],
)
def test_a_corpus_shows_its_language(language: str) -> None:
    found = Analyzer.of(LANGUAGES[language][0]).languages
    assert language in found.values()
    if found["Latin"] != language:
        assert found["Latin"] == "english"


def test_other_texts_are_english_as_far_as_they_are_latin() -> None:
    code = "def read(self, path, o, e, a, se, de): return [i for i in self._read(path) if i is not None]"
    for texts in (["Wings of a slender body"], [code], [""], ["12 % 7"], [], LANGUAGES["chinese"][0]):
        assert Analyzer.of(texts).languages == {"Latin": "english"}
    greek_letters = ["The η and ο of β-blockers and of the α-amylase were measured in the trial."]
    assert Analyzer.of(greek_letters).languages["Latin"] == "english"


def test_terms_of_each_script_are_stemmed_by_its_language() -> None:
    texts = LANGUAGES["russian"][0]
    terms = Analyzer.of(texts).terms(["Кошки и the running кошек"])
    # Snowball's published stems; "и" and "the" are stop words.
    assert terms == [["кошк", "run", "кошек"]]


def reference(documents: list[list[str]], query: list[str]) -> list[float]:
    """BM25 as Lucene writes it, from tokens: the formula alone."""
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for terms in documents:
        counts = Counter(terms)
        total = 0.0
        for term in query:
            frequency = sum(term in other for other in documents)
            if counts[term]:
                idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
                total += idf * counts[term] / (counts[term] + 0.9 * (0.6 + 0.4 * len(terms) / average))
        scores.append(total)
    return scores


NOTHING = ["", " \t\u3000", "!?", "the of", "🙂", "\u0301", "。"]


def test_scores_are_the_formulas_whatever_texts_are_empty() -> None:
    documents = ["wings lift a wing", *NOTHING, "what's the drag", "it s heat", "drag drag 北京 wing"]
    queries = ["what's", "it's", "s", "wing drag", "北京", "wing wing", *NOTHING]
    terms = Analyzer.of(documents).terms([*documents, *queries])
    index = LexicalIndex.of(dataset(documents, queries))
    every = np.tile(np.arange(len(documents), dtype=np.int32), (len(queries), 1))
    scores = index.scores(np.arange(len(queries), dtype=np.int32), every)
    for row, query in enumerate(terms[len(documents) :]):
        assert scores[row] == pytest.approx(reference(terms[: len(documents)], query), abs=1e-6)
    assert scores[0].nonzero()[0].tolist() == [8, 9]  # "s" is a word of its own
    assert not scores[-len(NOTHING) :].any()
    assert scores[2, 8] > 0


def test_a_lone_s_against_a_corpus_without_one_finds_the_rest() -> None:
    found = bm25_rankings(dataset(["heat", "wing"], ["what's heat", "it's", "s"]), np.arange(3, dtype=np.int32))
    assert found.documents.tolist() == [[0, -1], [-1, -1], [-1, -1]]


@pytest.mark.parametrize("query", [*NOTHING, "s", "wing"])
def test_a_corpus_without_terms_answers_nothing(query: str) -> None:
    found = bm25_rankings(dataset(NOTHING, [query]), np.zeros(1, dtype=np.int32))
    assert np.all(found.documents == -1)
