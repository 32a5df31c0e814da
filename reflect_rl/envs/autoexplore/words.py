"""The words of the generated companies. A pair is what a file says, and how a question may say it instead."""

from dataclasses import dataclass

Word = tuple[str, str]  # as files say it, as a question may say it


def _words(text: str) -> tuple[Word, ...]:
    """`wages/salaries absences` -> a pair for each word; one without a slash has no other word."""
    return tuple((first, second or first) for first, _, second in (word.partition("/") for word in text.split()))


@dataclass(frozen=True)
class Topic:
    """What a file is about, and its sort: `things`, `people` or `matters`."""

    word: Word
    sort: str


def _topics(**of_sorts: str) -> tuple[Topic, ...]:
    return tuple(Topic(word, sort) for sort, text in of_sorts.items() for word in _words(text))


@dataclass(frozen=True)
class Kind:
    """A kind of file: its folder and extension, what it can say of each sort of topics, and how one asks for it."""

    folder: str
    extension: str
    aspects: dict[str, tuple[Word, ...]]  #: sort of topics -> what can be said of them
    text: str  #: of a file; with {aspect}, {topic}, {site} and {extra}
    questions: tuple[str, ...]
    vague: tuple[str, ...]  #: names that say nothing


def _aspects(of_all: str = "", **of_sorts: str) -> dict[str, tuple[Word, ...]]:
    return {sort: _words(of_all + " " + of_sorts.get(sort, "")) for sort in ("things", "people", "matters")}


KINDS = {
    "rules": Kind(
        "rules",
        ".md",
        _aspects(
            things="storing/keeping ordering/requesting cleaning/washing lending/loaning inspecting/reviewing "
            "discarding/scrapping labelling/marking",
            people="greeting/welcoming training/teaching rewarding insuring/covering",
            matters="reporting/announcing approving/authorising planning/scheduling cancelling/dropping",
        ),
        "# On {aspect} {topic} at {site}\n\n{extra}\n",
        (
            "What are the rules for {aspect} {topic} at {site}?",
            "What must people at {site} know about {aspect} {topic}?",
            "Which page is about {aspect} {topic} at {site}?",
        ),
        ("notes", "page", "draft", "guide", "memo"),
    ),
    "tables": Kind(
        "tables",
        ".csv",
        _aspects(
            things="prices/costs sizes/dimensions suppliers/vendors repairs/fixes deliveries/shipments losses/shortfalls "
            "weights",
            people="addresses/whereabouts birthdays shifts/turns grades/marks",
            matters="dates/days reasons/grounds histories documents",
        ),
        "# The {aspect} of {topic} at {site}\n{extra}\n",
        (
            "Where are the {aspect} of {topic} at {site} listed?",
            "Which table has the {aspect} of {topic} at {site}?",
        ),
        ("table", "list", "export", "sheet", "data"),
    ),
    "tools": Kind(
        "tools",
        ".py",
        _aspects(
            "emails/sends prints/outputs counts/totals sorts/arranges copies/duplicates checks/verifies deletes/removes "
            "converts/translates encrypts/scrambles splits/divides"
        ),
        '"""It {aspect} the records of {topic} at {site}."""\n\n{extra}\n',
        (
            "Which script {aspect} the records of {topic} at {site}?",
            "What program {aspect} the records of {topic} at {site}?",
        ),
        ("run", "main", "script", "job", "util"),
    ),
    "settings": Kind(
        "settings",
        ".json",
        _aspects(
            "limit/maximum folder/directory contact alert/warning archive",
            things="colour/shade discount/reduction owner/holder",
            people="language/tongue room/place",
            matters="deadline/cutoff interval/frequency priority/urgency",
        ),
        '{{\n  "about": "the {aspect} for {topic} at {site}",\n{extra}\n}}\n',
        (
            "Where is the {aspect} for {topic} at {site} set?",
            "Which settings hold the {aspect} for {topic} at {site}?",
        ),
        ("config", "options", "values", "setup", "defaults"),
    ),
    "archive": Kind(
        "archive",
        ".txt",
        _aspects(
            things="lost/missing delayed/late damaged/broken stolen/taken recalled/withdrawn replaced/exchanged "
            "donated/gifted",
            people="praised/admired invited/asked hired/employed promoted/advanced",
            matters="discussed/debated postponed/deferred changed/altered rejected/refused",
        ),
        "The {topic} were {aspect} at {site}.\n{extra}\n",
        (
            "Which letter says that {topic} were {aspect} at {site}?",
            "Where is it told that {topic} were {aspect} at {site}?",
        ),
        ("letter", "minutes", "record", "text", "old"),
    ),
}

DEPARTMENTS = {
    "hr": _topics(
        matters="holidays/vacations interviews contracts/agreements absences",
        people="trainees/apprentices",
        things="uniforms/outfits",
    ),
    "finance": _topics(matters="wages/salaries invoices/bills taxes/duties loans/credits expenses budgets"),
    "sales": _topics(
        things="coupons/vouchers catalogues/brochures samples",
        people="customers/clients",
        matters="fairs/exhibitions tours",
    ),
    "safety": _topics(things="ladders extinguishers helmets/hats gloves sirens", matters="accidents/mishaps"),
    "transport": _topics(
        things="vans/lorries pallets forklifts containers/crates", people="drivers", matters="routes/itineraries"
    ),
    "office": _topics(things="printers phones/telephones desks keys", matters="passwords/logins meetings/gatherings"),
}
#: departments that deal with a trade's own goods, by their share
GOODS = {"sales": 0.4, "transport": 0.3, "safety": 0.15, "office": 0.15}

TRADES = {
    trade: _topics(things=goods)
    for trade, goods in {
        "bakery": "loaves/bread ovens pastries/cakes pretzels biscuits/cookies doughs rolls/buns pies",
        "bicycles": "saddles/seats pedals tyres/wheels brakes bells handlebars chains pumps",
        "pharmacy": "inhalers tablets/pills syrups bandages/dressings ointments/creams vitamins syringes thermometers",
        "brewery": "barrels/casks bottles hops kegs/drums labels/stickers taps mugs/tankards corks",
        "circus": "tightropes tents/marquees wigs trapezes cannons costumes/disguises drumsticks stilts",
        "farm": "tractors seeds/grains fences/hedges ploughs buckets/pails eggs scarecrows barns/sheds",
        "furniture": "mattresses sofas/couches wardrobes/closets stools/benches mirrors carpets/rugs lamps/lights shelves",
        "toys": "puppets/dolls kites marbles puzzles/riddles robots balloons trains/locomotives tops/spinners",
        "optician": "lenses spectacles/glasses microscopes telescopes goggles prisms magnifiers/loupes cases/boxes",
        "shipyard": "anchors sails/canvases rudders masts/poles ropes/cables lifeboats compasses oars/paddles",
        "music": "violins/fiddles trumpets cymbals/gongs harps flutes/whistles pianos strings/cords bows",
        "beekeeping": "hives/apiaries candles/tapers honeypots combs smokers veils swarms/colonies frames",
    }.items()
}
HELD_OUT = ("shipyard", "music", "beekeeping")  # trades that training never sees

SITES = tuple(
    a + b
    for a, b in zip(
        "Nor Sel Ash Brack Cor Dun Elm Farn Glen Har Ing Kel Lang Mar Oak Pen Quarn Rush Stan Thorn Ul Wex Yar Bex Cray".split(),
        "ford ley by ton wick dale hurst ham more field bridge stead worth mouth well combe ley den hope gate ver low row hill fell".split(),
        strict=True,
    )
)
