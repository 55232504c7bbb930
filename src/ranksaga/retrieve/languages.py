"""The languages whose words BM25 stems, and how a corpus's languages are recognised: by their stop words.

Each script has a language of its own, so that English terms in Russian or Chinese texts are stemmed, too.
Words of Latin script are taken as English unless another language is plainly there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import regex

from ranksaga.data.words import folded, tokens

__all__ = ["Analyzer"]

# A corpus's language is read off this many documents, spread over it.
_SAMPLE = 500
# Stop words make a quarter to a half of running text. Another language than English must have this share of the words,
# two stop words at least, and half as many again as English has.
_LEAST_SHARE = 0.1
_LEAST_WORDS = 2
_ABOVE_ENGLISH = 1.5

_SCRIPTS = {
    name: regex.compile(rf"\p{{{name}}}")
    for name in ("Latin", "Cyrillic", "Arabic", "Devanagari", "Greek", "Armenian", "Tamil", "Hebrew")
}
# By script and language the most frequent function words. What Snowball does not stem is known too, so that it is
# stemmed as no other language.
_FUNCTION_WORDS: Mapping[str, Mapping[str, str]] = {
    "Latin": {
        "german": "der die das und in zu den von mit ist im für auf nicht ein eine des dem sich als auch es an werden "
        "aus er hat dass sie nach wird bei einer um am sind noch wie einem einen über so zum zur",
        "french": "le la les de des du et un une en est que qui dans pour pas sur au aux ce cette il elle par plus "
        "avec ne se sont son sa ses ou l d qu c n s j mais comme",
        "spanish": "el la los las de que y en un una es por con no para se del al su lo como más pero sus le o este "
        "esta",
        "portuguese": "o a os as de que e do da em um uma é para com não se por no na dos das ao mais como mas foi seu "
        "sua são",
        "italian": "il lo la i gli le di che e un una in è per con non si del della dei delle da al alla nel nella "
        "sono come più ma anche questo l",
        "dutch": "de het een en van te dat die in is niet zijn op aan met als voor er maar om dan zou of wat dit door "
        "over ze ook tot je bij naar wordt worden",
        "swedish": "och det att i en som på den med var sig för så till är men ett om hade de av inte från kan har",
        "danish": "og i det at en den til er som på de med af for ikke der var sig men et har om vi fra også kan",
        "norwegian": "og i det at en et den til er som på de med av ikke der var seg men har om vi fra også kan for",
        "finnish": "ja on ei se että oli joka mutta kun niin tai myös ovat kuin sen ole mitä siitä jos olla hän voi",
        "hungarian": "a az és hogy nem is egy ez volt meg csak de ha mint már vagy el van még azt kell ki",
        "romanian": "și în de la cu pe nu este care că un o din pentru mai sunt al ale au fost ce se prin",
        "catalan": "el la els les de i que en un una és per amb no es del dels al als són com més però aquest aquesta",
        "czech": "a je se v na že to s z do i o pro jako ale by za jsou od po který která jak při nebo",
        "polish": "w i na z się do nie jest że to o jak po za dla od przez ale co są oraz lub który która",
        "serbian": "je i u na se da su za od koji što ne kao ali sa bio iz",
        "estonian": "ja on ei see et ta oli kui mis ka aga oma mida või nii seda kes tema olid",
        "lithuanian": "ir yra kad į iš su ne kaip bet tai jo kurie buvo ar už apie",
        "basque": "eta da ez du bat dira zen izan baina ere hau dute dago edo den",
        "irish": "agus an na ar is i go a do le sé bhí sí ag ní tá mar",
        "indonesian": "yang dan di dengan untuk dari ini itu pada adalah tidak dalam akan ke atau juga oleh "
        "sebagai bisa",
        "turkish": "ve bir bu için ile da de çok daha gibi olarak ne var ama o en kadar sonra mi ki değil",
        "esperanto": "la kaj en de estas al ne ke por el ĝi kun li kiu sed",
        "vietnamese": "và của là có các không được trong một cho những người với này đã để",
        "swahili": "ya na wa kwa ni katika za la kuwa hii cha yake kama",
        "tagalog": "ang ng sa na mga ay at hindi ito para",
    },
    "Cyrillic": {
        "russian": "и в не на что с по это как из а для к он все но у так от за было был его же только или быть",
        "ukrainian": "і в на що не з та до у як це для від є про але за його який також",
        "bulgarian": "и на да се в от за е не с че по като са но това при които със ще",
        "serbian": "и је у на се да су за од који што не као али са",
    },
    "Arabic": {
        "arabic": "في من على أن إلى التي عن مع هذا هذه كان الذي ما لا أو قد بعد ذلك كل لم بين هو هي و",
        "persian": "و در به از که این را با است برای آن یک می خود تا بر هم نیز های ها شد بود",
        "urdu": "کے کی میں ہے اور سے کا کو پر نے یہ کہ اس ہیں تھا بھی",
    },
    "Devanagari": {
        "hindi": "के में की है और से का को पर ने यह कि हैं इस एक भी नहीं था लिए जो",
        "nepali": "को मा र छ का ले लाई पनि हो यो एक गर्न भएको तथा थियो",
        "marathi": "आहे व आणि या च्या होते हे की तो मध्ये होता असे",
    },
    "Greek": {
        "greek": "ο η το και να του της με που την από για τα είναι τον στο των σε θα δεν οι στην ότι τις ένα μια",
    },
    "Armenian": {"armenian": "և է որ ի են նա այդ մի իր համար"},
    "Tamil": {"tamil": "ஒரு என்று மற்றும் இந்த இது என்ற அந்த உள்ள"},
    "Hebrew": {
        "hebrew": "של את על לא הוא עם זה אני כי היא אל אם",
        "yiddish": "און איז די אין דער צו פון האט ניט",
    },
}
# Letters that two languages of one script type for each other.
_SPELLINGS = {"arabic": str.maketrans("یک", "يك"), "persian": str.maketrans("يىك", "ییک")}


@dataclass(frozen=True)
class Analyzer:
    """From texts to terms: folded words without stop words, stemmed. ``languages`` is the language of each script
    that has one."""

    languages: Mapping[str, str]

    @staticmethod
    def of(texts: Sequence[str]) -> Analyzer:
        """For a corpus: by script the language that its documents are in."""
        rows = np.linspace(0, len(texts) - 1, min(len(texts), _SAMPLE)).round().astype(int)
        counts: dict[str, Counter[str]] = {script: Counter() for script in (*_SCRIPTS, "")}
        for row in rows.tolist():
            for word in tokens(texts[row]):
                counts[_script(word)][word] += 1
        found = {script: _language(script, counts[script]) for script in _SCRIPTS}
        return Analyzer({script: language for script, language in found.items() if language is not None})

    def terms(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text, in order; none that is empty."""
        stems = _Stems(self.languages)
        turkic = self.languages.get("Latin") == "turkish"
        return [[term for word in tokens(text, turkic=turkic) if (term := stems[word])] for text in texts]


class _Stems(dict[str, str]):
    """The term of each word that was asked for; empty for stop words."""

    def __init__(self, languages: Mapping[str, str]) -> None:
        import Stemmer

        self._languages = languages
        self._stemmers = {
            language: Stemmer.Stemmer("porter" if language == "english" else language)
            for language in languages.values()
            if language in ("english", *Stemmer.algorithms())
        }

    def __missing__(self, word: str) -> str:
        language = self._languages.get(_script(word), "")
        term = word
        if language:
            term = word.translate(_SPELLINGS.get(language, {}))
            if term in _stop_words(language):
                term = ""
            elif language in self._stemmers:
                # A stemmer may leave nothing of a word: Porter's of "s", which the apostrophe of "it's" leaves alone.
                term = self._stemmers[language].stemWord(term) or term
        self[word] = term
        return term


def _script(word: str) -> str:
    """The script of a word as far as it decides how to stem; digits count as Latin, letters of others as none."""
    if word.isascii():
        return "Latin"
    return next((name for name, pattern in _SCRIPTS.items() if pattern.search(word)), "")


def _language(script: str, words: Counter[str]) -> str | None:
    """The language of a corpus's words of one script."""
    default = "english" if script == "Latin" else None
    total = words.total()
    if total == 0:
        return default
    shares = {}
    for language, known in _FUNCTION_WORDS[script].items():
        hits = [count for word in _folded_list(known) if (count := words[word])]
        shares[language] = sum(hits) / total if len(hits) >= _LEAST_WORDS else 0.0
    best = max(shares, key=lambda language: shares[language])
    english = sum(words[word] for word in _stop_words("english")) / total if default else 0.0
    return best if shares[best] >= max(_LEAST_SHARE, _ABOVE_ENGLISH * english) else default


@cache
def _folded_list(words: str) -> frozenset[str]:
    return frozenset(token for word in words.split() for token in tokens(word))


@cache
def _stop_words(language: str) -> frozenset[str]:
    """bm25s' list where it has one, and the function words above; of English bm25s' alone."""
    import bm25s.stopwords

    if language == "english":
        return frozenset(bm25s.stopwords.STOPWORDS_EN)
    spelling = _SPELLINGS.get(language, {})
    listed = {word for known in _FUNCTION_WORDS.values() for word in known.get(language, "").split()}
    listed |= set(getattr(bm25s.stopwords, f"STOPWORDS_{language.upper()}", ()))
    turkic = language == "turkish"
    return frozenset(folded(word, turkic=turkic).translate(spelling) for word in listed)
