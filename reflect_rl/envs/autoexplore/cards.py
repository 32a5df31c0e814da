"""What one sees of a file of a real repository: a card of what it says of itself, without what all files have.

A docstring, headings, signatures and the sentences behind them come before code; licence headers, imports, badges and
markup are left out. Questions are made of the same cards, so what is asked can be seen.
"""

import ast
import re
from dataclasses import dataclass

LETTERS = 400  # of a card
SHORT = 12  # a shorter line says nothing


@dataclass(frozen=True)
class Statement:
    """A sentence that a file says of something in it."""

    of: str  #: `module`, `class`, `function`, `heading` or `text`
    name: str  #: of the class or function, or the heading above; empty for a module
    text: str


def first_sentence(text: str) -> str:
    """The first sentence of a docstring or paragraph, on one line."""
    paragraph = re.split(r"\n\s*\n", text.strip())[0]
    line = " ".join(paragraph.split())
    return re.split(r"(?<=[a-z)`'\"\]])[.:!?](?=\s|$)", line)[0].strip().rstrip(".:")


def plain(text: str) -> str:
    """Text without the markup of reStructuredText and Markdown."""
    text = re.sub(r":[a-z:+-]+:`~?\.?([^`<]*?)(?:\s*<[^>]*>)?`", r"\1", text)  # roles
    text = re.sub(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)  # links of Markdown
    text = re.sub(r"`([^`<]+?)\s*<[^>]+>`_+", r"\1", text)  # links of reStructuredText
    text = re.sub(r"<[^<>\s][^<>]*>", "", text)
    text = re.sub(r"``([^`]*)``|`([^`]*)`_*", lambda m: m.group(1) or m.group(2) or "", text)
    return re.sub(r"\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?!\w)", lambda m: m.group(1) or m.group(2), text)


def _of_python(text: str) -> list[Statement]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    found = []
    if doc := ast.get_docstring(tree):
        found.append(Statement("module", "", first_sentence(plain(doc))))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (doc := ast.get_docstring(node)):
            of = "class" if isinstance(node, ast.ClassDef) else "function"
            if not node.name.startswith("__"):
                found.append(Statement(of, node.name, first_sentence(plain(doc))))
    return found


_UNDERLINE = re.compile(r"^([=\-~^#*+\"'`.:_])\1{2,}\s*$")
_SKIPPED = re.compile(
    r"^\s*(\.\. |:[\w-]+:|\[!\[|!\[|\||\+-|```|<|>>>|\$ |- \[|[-*] |\d+\. |\.\.$|import |from .* import )"
)


def _of_prose(text: str) -> list[Statement]:
    """Headings, and the first sentence below each."""
    lines, found, heading, paragraph, in_code = text.splitlines(), [], "", [], False

    def close():
        if paragraph:
            sentence = first_sentence(plain(" ".join(paragraph)))
            if not any(s.of == "text" and s.name == heading for s in found):
                found.append(Statement("text", heading, sentence))
        paragraph.clear()

    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("```"):
            in_code = not in_code
        is_heading = re.match(r"^#{1,4} \S", line) or (
            line.strip() and _UNDERLINE.match(after) and len(after.strip()) >= len(line.strip()) - 2 and line[0] != " "
        )
        if is_heading and not in_code:
            close()
            heading = plain(re.sub(r"^#+ |\{[^}]*\}", "", line)).strip(" #")
            found.append(Statement("heading", "", heading))
        elif (
            in_code
            or not line.strip()
            or line.startswith((" ", "\t"))
            or _SKIPPED.match(line)
            or _UNDERLINE.match(line)
        ):
            close()
        else:
            paragraph.append(line)
    close()
    return [s for s in found if s.text]


def statements(path: str, text: str) -> list[Statement]:
    """What a file says, in its order; empty where it says nothing in words."""
    if path.endswith(".py"):
        return _of_python(text)
    return _of_prose(text) if path.endswith((".md", ".rst", ".txt")) else []


def card(path: str, text: str) -> str:
    """What `cat` shows of a file."""
    said = statements(path, text)
    if not said:
        kept = [
            line for line in text.splitlines() if line.strip() and not re.match(r"\s*(#|//|/\*|\*|import |from )", line)
        ]
        return _cut("\n".join(kept[:12]))
    lines = []
    for s in said:
        prefix = {"class": f"class {s.name}: ", "function": f"def {s.name}: ", "heading": "# "}.get(s.of, "")
        lines.append(prefix + s.text + ("." if s.of != "heading" else ""))
    return _cut("\n".join(lines))


def shown_statements(path: str, text: str) -> list[Statement]:
    """Those statements that the card shows as a whole."""
    seen = " ".join(card(path, text).split())
    return [s for s in statements(path, text) if " ".join(s.text.split()) in seen and len(s.text) >= SHORT]


def _cut(text: str) -> str:
    if len(text) <= LETTERS:
        return text
    head = text[: LETTERS + 1]
    return head[: max(head.rfind(" "), head.rfind("\n"))].rstrip() if re.search(r"\s", head) else head[:LETTERS]
