"""HTML as a tree. Text becomes text: what a log or a hostname holds cannot become markup.

Built on xml.etree, whose serializer escapes every text and attribute.
"""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Child = Element | str | None

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def el(tag: str, *children: Child, **attributes: str) -> Element:
    """One element. Strings become text, None is left out; class_ is written "class", aria_label "aria-label"."""
    element = Element(tag, {name.rstrip("_").replace("_", "-"): printable(text) for name, text in attributes.items()})
    add(element, *children)
    return element


def add(parent: Element, *children: Child) -> None:
    """Append children to `parent`, in order."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif child and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + printable(child)
        elif child:
            parent.text = (parent.text or "") + printable(child)


def printable(text: str) -> str:
    """`text` with what HTML forbids (control characters, lone surrogates) shown as the replacement character."""
    return _CONTROL.sub("\ufffd", text)


def document(root: Element) -> str:
    """The whole page as text."""
    return "<!doctype html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"
