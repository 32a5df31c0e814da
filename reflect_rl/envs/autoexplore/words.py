"""The words of the generated companies. A pair is what a file says, and how a question may say it instead."""

from dataclasses import dataclass

Word = tuple[str, str]  # as files say it, as a question may say it


def _words(text: str) -> tuple[Word, ...]:
    """`wages/salaries absences` -> a pair for each word; one without a slash has no other word."""
    return tuple((first, second or first) for first, _, second in (word.partition("/") for word in text.split()))


@dataclass(frozen=True)
class Kind:
    """A kind of file: its folder and extension, what it can say of a topic, how it says it, and how one asks for it."""

    folder: str
    extension: str
    aspects: tuple[Word, ...]
    text: str  #: of a file; with {aspect}, {Aspect}, {topic}, {Topic}, {site} and {extra}
    questions: tuple[str, ...]
    vague: tuple[str, ...]  #: names that say nothing


KINDS = {
    "rules": Kind(
        "rules",
        ".md",
        _words(
            "storing/keeping ordering/requesting cleaning/washing lending/loaning reporting/announcing "
            "inspecting/reviewing approving/authorising discarding/scrapping moving/relocating labelling/marking"
        ),
        "# {Aspect} {topic} at {site}\n\n{extra}\n",
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
        _words(
            "prices/costs sizes/dimensions suppliers/vendors complaints/grievances orders/purchases repairs/fixes "
            "returns/refunds deliveries/shipments losses/shortfalls ratings/scores"
        ),
        "# {Aspect} of {topic} at {site}\n{extra}\n",
        (
            "Where are the {aspect} of {topic} at {site} listed?",
            "Which table has the {aspect} of {topic} at {site}?",
        ),
        ("table", "list", "export", "sheet", "data"),
    ),
    "tools": Kind(
        "tools",
        ".py",
        _words(
            "emails/sends prints/outputs counts/totals sorts/arranges copies/duplicates checks/verifies deletes/removes "
            "converts/translates encrypts/scrambles splits/divides"
        ),
        '"""{Aspect} the records of {topic} at {site}."""\n\n{extra}\n',
        (
            "Which script {aspect} the records of {topic} at {site}?",
            "What program {aspect} the records of {topic} of {site}?",
        ),
        ("run", "main", "script", "job", "util"),
    ),
    "settings": Kind(
        "settings",
        ".json",
        _words(
            "limit/maximum deadline/cutoff colour/shade currency/money interval/frequency precision/rounding alarm/alert "
            "folder/directory discount/reduction owner/holder"
        ),
        '{{\n  "about": "{aspect} for {topic} at {site}",\n{extra}\n}}\n',
        (
            "Where is the {aspect} for {topic} at {site} set?",
            "Which settings hold the {aspect} for {topic} at {site}?",
        ),
        ("config", "options", "values", "setup", "defaults"),
    ),
    "archive": Kind(
        "archive",
        ".txt",
        _words(
            "lost/missing delayed/late damaged/broken stolen/taken praised/admired recalled/withdrawn replaced/exchanged "
            "forgotten/overlooked donated/gifted auctioned/sold"
        ),
        "{Topic} were {aspect} at {site}.\n{extra}\n",
        (
            "Which letter says that {topic} were {aspect} at {site}?",
            "Where is it told that {topic} were {aspect} at {site}?",
        ),
        ("letter", "minutes", "record", "text", "old"),
    ),
}

DEPARTMENTS = {
    "hr": _words("holidays/vacations interviews contracts/agreements trainees/apprentices absences uniforms/outfits"),
    "finance": _words("wages/salaries invoices/bills taxes/duties loans/credits expenses budgets"),
    "sales": _words("coupons/vouchers customers/clients catalogues/brochures adverts samples fairs/exhibitions"),
    "safety": _words("ladders extinguishers helmets/hats gloves accidents/mishaps alarms/sirens"),
    "transport": _words("vans/lorries pallets routes/itineraries drivers forklifts containers/crates"),
    "office": _words("passwords/logins printers phones/telephones desks keys meetings/gatherings"),
}
#: departments that deal with a trade's own goods, by their share
GOODS = {"sales": 0.4, "transport": 0.3, "safety": 0.15, "office": 0.15}

TRADES = {
    "bakery": _words("loaves/bread ovens pastries/cakes pretzels biscuits/cookies doughs rolls/buns pies"),
    "bicycles": _words("saddles/seats pedals tyres/wheels brakes bells handlebars chains pumps"),
    "pharmacy": _words("inhalers tablets/pills syrups bandages/dressings ointments/creams vitamins syringes thermometers"),
    "brewery": _words("barrels/casks bottles hops kegs/drums labels/stickers taps mugs/tankards corks"),
    "circus": _words("tightropes tents/marquees clowns/jesters trapezes cannons costumes/disguises lions elephants"),
    "farm": _words("tractors seeds/grains fences/hedges ploughs lambs eggs scarecrows barns/sheds"),
    "furniture": _words("mattresses sofas/couches wardrobes/closets stools/benches mirrors carpets/rugs lamps/lights shelves"),
    "toys": _words("puppets/dolls kites marbles puzzles/riddles robots balloons trains/locomotives tops/spinners"),
    "optician": _words("lenses spectacles/glasses microscopes telescopes goggles prisms magnifiers/loupes cases/boxes"),
    "shipyard": _words("anchors sails/canvases rudders masts/poles ropes/cables lifeboats compasses oars/paddles"),
    "music": _words("violins/fiddles trumpets cymbals/gongs harps flutes/whistles pianos strings/cords bows"),
    "beekeeping": _words("hives/apiaries candles/tapers honeys queens smokers veils swarms/colonies frames"),
}
HELD_OUT = ("shipyard", "music", "beekeeping")  # trades that training and validation never see

SITES = tuple(
    a + b
    for a, b in zip(
        "Nor Sel Ash Brack Cor Dun Elm Farn Glen Har Ing Kel Lang Mar Oak Pen Quarn Rush Stan Thorn Ul Wex Yar Bex Cray".split(),
        "ford ley by ton wick dale hurst ham more field bridge stead worth mouth well combe ley den hope gate ver low row hill fell".split(),
        strict=True,
    )
)
