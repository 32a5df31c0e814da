"""Questions about a repository from what its files say of themselves, by rules, or by another writer.

By rules a statement becomes a question where its grammar allows it. Kept are those that one file's card answers and no
other's does nearly as well. A doubtful one is dropped.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

from reflect_rl.envs.autoexplore.cards import Statement, card, shown_statements

OTHERS = 0.6  # weight of a question's words that another file's card may have
PER_FILE = 3
WORDS = (5, 20)  # of a question, at least and at most

#: what functions and classes say that they do, in the imperative; `does` and the like are formed by rule
VERBS = frozenset(
    "incorporate integrate interact override sleep refactor explain describe demonstrate list cover illustrate introduce outline accept accumulate add adjust adapt aggregate allow append apply assert assign attach bind build bypass calculate call "
    "cast change check choose clean clear close collect combine compare compile complete compute concatenate configure "
    "connect construct contain control convert copy count create cut decode decorate define delete denormalize depend "
    "deserialize determine display divide download draw drop dump echo emit enable encapsulate encode ensure enter escape "
    "evaluate execute expand export extend extract fetch fill filter find fit flatten fold force form format forward "
    "generate get give group handle hash highlight hold identify ignore implement import indent initialize inject insert "
    "inspect install interpret intersect invoke iterate join keep launch lex limit link list load locate log look make "
    "manage manipulate map mark match melt merge mimic model modify move normalize notify obtain open order organize output "
    "overwrite pack parse pass perform pick pivot plot poll populate prepare prepend present preserve prevent print "
    "process produce profile progress prompt provide pull push put query quote raise read rearrange rebuild receive record "
    "recover redirect reduce register release remove rename render reorder repeat replace represent require resolve "
    "respond restore return reverse rewrite round run sample save scan search select send separate serialize serve set "
    "show shut simulate skip slugify sort specify split stack start stop store stream strip subtract sum support "
    "synchronize tabulate take test tokenize transform translate transpose traverse treat truncate turn unescape "
    "uninstall unpack unpickle update upload use validate verify visit wait walk wrap write yield zip".split()
)
_CODE = re.compile(
    r"[{}=\\<>|;#@\[\]$^~]|::|\(\)|__|\w_\w|--|https?:|\.\w+\(|…|\.\.\.|%\w|&\w+;|\w\.\w|'s$|(^| )\.\w|\w_(?!\w)|[^\x00-\x7f]"
)
_LOOSE_END = frozenset(
    "a an and as at be by called each following for from if in into is like of on or see such than that the these this to "
    "via when where which with your given approx e.g i.e etc".split()
)
_POINTING = re.compile(
    r"\b(this|these|those|it|its|we|our|us|you|your|above|below|here|they|self|same|previous|following|I)\b", re.I
)
_ARTICLE = re.compile(r"\ban (?!hour|honest|heir)[bcdfghj-np-tv-z]|\ba [aeio][a-z]")
_STOP = frozenset(
    "a an and are as at be by class code file for from function has have holds how in into is it its module of on or page "
    "about defines does explains section that the their there this to what where which with can not no all "
    "any one when if used using use uses tells documents".split()
)


FUNCTION = ("Where is the function that {}?", "Which file has the code that {}?", "Which function {}?")


def third(verb: str) -> str:
    """`match` -> `matches`."""
    if verb in ("do", "go") or re.search(r"(s|x|z|sh|ch)$", verb):
        return verb + "es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + "s"


_THIRDS = {third(verb): verb for verb in VERBS}


def _lowered(phrase: str) -> str:
    """A phrase with a small first letter, but for names and abbreviations."""
    first = re.match(r"[\w'/-]+", phrase)
    is_name = first is None or any(c.isupper() or c.isdigit() for c in first.group()[1:]) or first.group() in _NAMES
    return phrase if is_name else phrase[0].lower() + phrase[1:]


_NAMES = frozenset(
    "Python Flask Jinja Click Lark Markdown Excel Windows Unix Git Django Celery Babel Pandas Earley Apache I".split()
)


def _small(heading: str) -> str:
    """A heading in lower case, but for names and abbreviations."""
    return " ".join(_lowered(word) for word in heading.split(" "))


#: after `and` or `or` no nouns
_ALSO = re.compile(
    r"(?:(?<= and )|(?<= or ))(return|write|read|convert|yield|raise|create|add|remove|apply|render|set|print|store|invoke|"
    r"execute|put|exit|replace|append|parse|load|send|emit|split|call|sort|merge|profile|extract|keep)(?= )"
)


def _predicate(text: str) -> str | None:
    """`Return the sum of x` -> `returns the sum of x`; None where a text does not begin with a known verb."""
    word, _, rest = text.partition(" ")
    low = word.lower()
    if not rest or word.isupper():
        return None
    rest = _ALSO.sub(lambda verb: third(verb.group()), " " + rest)[1:]
    if low in _THIRDS:
        return f"{low} {rest}"
    return f"{third(low)} {rest}" if low in VERBS else None


_FINITE = frozenset(
    "is are was were be has have had can could may might must shall should will ran define needs does do".split()
)
_PAGE = re.compile(
    r"This (page|document|section|guide|chapter|tutorial|example|extension|quickstart|recipe|file) (?:also )?(.+)"
)
_NOUN = re.compile(r"^(A|An|The) [a-z]")
_PLURAL = re.compile(
    r"^(?:[A-Z]?[a-z-]+ ){0,3}(functions|utilities|helpers|tools|classes|extensions|tests|tables|examples|routines|methods|types|exceptions|decorators|commands|constants|settings|filters|objects|interfaces|mixins)\b"
)


def asked(statement: Statement) -> str | None:
    """A statement as a question, or None where the rules do not know how."""
    text = statement.text
    clause = re.split(
        r" -{1,2} |; |\. |: |, (?:or|but|which|so|e\.g|i\.e|see|where|if|unless|as)\b| \(|(?<=\w), (?=then\b)", text
    )[0].rstrip(",")
    predicate = _predicate(clause)
    match statement.of:
        case "module":
            if predicate:
                return f"Which module {predicate}?"
            if _is_noun(clause):
                return f"Which module holds {_lowered(clause)}?"
            return (
                f"Where are the {_lowered(clause)}?"
                if _PLURAL.match(clause) and not _FINITE & {*clause.split()}
                else None
            )
        case "function":
            form = FUNCTION[crc32(text.encode()) % len(FUNCTION)]
            return form.format(predicate) if predicate else None
        case "class":
            if predicate:
                return f"Where is the class that {predicate}?"
            return (
                f"Which file defines {_lowered(clause)}?"
                if _is_noun(clause) and "class" not in clause.lower()
                else None
            )
        case "heading":
            return f"Which page has a section on {_small(clause)}?" if clause == text and _speaks(clause) else None
        case "text":
            page = _PAGE.match(clause)
            rest = page and _predicate(page.group(2))
            return f"Which page {rest}?" if rest else None
    return None


def _is_noun(phrase: str) -> bool:
    """Whether a text is a noun phrase, as far as its words tell, and no sentence."""
    main = re.split(r"\b(?:that|which|who|whose|where|when)\b", phrase)[0]
    return bool(_NOUN.match(phrase)) and not any(w in _THIRDS or w in _FINITE for w in main.split()[2:])


def _speaks(heading: str) -> bool:
    """Whether a heading says what its page is about: three words, and no sentence, number or name of a release."""
    words = heading.split()
    return (
        3 <= len(words) <= 9
        and not re.search(
            r"\d+\.\d|[?!:,/&]|^(How|What|Why|When|Where|If|I|Is|Can|Does|Do|Table|The|Version|Unreleased)\b", heading
        )
        and not heading.isupper()
        and (words[0].lower().endswith("ing") or not _predicate(heading))
        and words[0].lower() not in _LOOSE_END
        and not re.fullmatch(r"(?!only|early|family)\w+ly", words[0].lower())
    )


def _is_well_formed(question: str) -> bool:
    body = question.rstrip("?")
    count = len(body.split())
    return (
        WORDS[0] <= count <= WORDS[1]
        and not _CODE.search(body)
        and not _POINTING.search(body)
        and body.split()[-1].lower().strip("'\".,") not in _LOOSE_END
        and body.count('"') % 2 == 0
        and body.count("(") == body.count(")")
        and not _ARTICLE.search(body)
        and not re.search(r"\b(\w+) \1\b|\bdeprecated\b|todo|fixme|[a-z][A-Z]", body)
    )


def stems(text: str) -> list[str]:
    """Content words without their endings."""
    found = re.findall(r"[a-z][a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower())
    return [_stem(word) for word in found if word not in _STOP]


def name_stems(name: str) -> list[str]:
    """Content words of a file's, folder's or path's name without their endings."""
    return stems(re.sub(r"[_./-]", " ", name))


def _stem(word: str) -> str:
    """`parsing`, `parses`, `parse` -> `pars`; `queries`, `query` -> `query`; `running` -> `run`."""
    short = re.sub(r"(?<=\w{2})ie[sd]$", "y", word)
    short = re.sub(r"(?<=\w{3})(ing|ers?|ed|es|s|e)$", "", short)
    return re.sub(r"([bdglmnprt])\1$", r"\1", short)


@dataclass(frozen=True)
class Asked:
    """A question, the file that answers it, and what of the answer its words give away."""

    text: str
    path: str
    of: str  #: kind of the statement that it was made of
    leak: str  #: `stem`: it has the file's name, `part`: a part of it, `folder`: a folder's name, or `nothing`


def leak(question: str, path: str) -> str:
    """What a question shares with the path of its file."""
    words, (*folders, name) = {*stems(question)}, path.split("/")
    stem = name_stems(name.rpartition(".")[0])
    if stem and words >= {*stem}:
        return "stem"
    if words & {*stem}:
        return "part"
    return "folder" if words & {*name_stems("/".join(folders))} else "nothing"


#: (path, text of a file, its card) -> (kind of the statement that it is made of, question) of what it may be asked for
Writer = Callable[[str, str, str], Iterable[tuple[str, str]]]


def by_rules(path: str, text: str, says: str) -> list[tuple[str, str]]:
    """The questions that rules make of a file's statements."""
    made = [(statement.of, asked(statement)) for statement in shown_statements(path, text)]
    return [(of, question) for of, question in made if question]


def questions(files: Mapping[str, str], writer: Writer = by_rules, least: float = 1.0) -> list[Asked]:
    """The questions on a repository, sorted by path: of each file at most `PER_FILE`, the most telling ones.

    Kept is a question whose words, weighted by how rare they are, the file's card has to a share of at least `least`, and
    no other card to nearly that share. Rules take their words from the card; a language model uses others too.
    """
    says = {path: card(path, text) for path, text in files.items()}
    cards = {path: {*stems(text)} for path, text in says.items()}
    seen_in = Counter(word for words in cards.values() for word in words)
    weight = {word: math.log(1 + len(cards) / number) for word, number in seen_in.items()}
    rarest = math.log(1 + len(cards))
    found: dict[str, list[tuple[float, Asked]]] = {}
    for path, text in sorted(files.items()):
        for of, question in writer(path, text, says[path]):
            words = {*stems(question)}
            if not _is_well_formed(question) or len(words & cards[path]) < 3:
                continue
            total = sum(weight.get(word, rarest) for word in words)
            share = {p: sum(weight[w] for w in words & other) / total for p, other in cards.items()}
            own = share.pop(path)
            if own < least - 1e-9 or max(share.values(), default=0) > OTHERS * own:
                continue
            found.setdefault(path, []).append((total, Asked(question, path, of, leak(question, path))))
    chosen = [asked for of in found.values() for _, asked in sorted(of, key=lambda pair: -pair[0])[:PER_FILE]]
    texts = Counter(a.text for a in chosen)
    return [a for a in chosen if texts[a.text] == 1]
