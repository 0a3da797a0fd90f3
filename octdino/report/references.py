"""Bibliography of the methods text: the entries of references.bib that it cites, as BibTeX.

Titles, years and numbers were looked up in published bibliographies, not written from memory; look up what you add.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from octdino import __version__

FILE = Path(__file__).with_name("references.bib")

METHODS = {
    "dino": ("DINO", ("caron2021emerging",)),
    "dinov2": ("DINOv2", ("oquab2023dinov2",)),
    "byol": ("BYOL", ("grill2020bootstrap",)),
    "simclr": ("SimCLR", ("chen2020simple",)),
    "moco": ("MoCo", ("he2020momentum", "chen2020improved", "chen2021empirical")),
    "vicreg": ("VICReg", ("bardes2022vicreg",)),
    "supcon": ("SupCon", ("khosla2020supervised",)),
}  # by the method's name in octdino: its name in papers, and its entries
COHORTS = {
    "olives": "prabhushankar2022olives", "oct2017": "kermany2018identifying", "octdl": "kulyabin2024octdl",
    "imagenette": "howard2019imagenette", "cifar10": "krizhevsky2009learning", "stl10": "coates2011analysis",
    "voc12": "everingham2012pascal",
}  # fmt: skip
BACKBONES = {"resnet": "he2016deep", "vit": "dosovitskiy2021image", "deit": "dosovitskiy2021image"}


def cite(*keys: str) -> str:
    """Return a citation as Pandoc and Quarto read it: [@first; @second]."""
    return f"[{'; '.join(f'@{key}' for key in keys)}]"


def cited(text: str) -> list[str]:
    """Return the keys that a text cites, each once, in their order."""
    found = re.findall(r"@([a-z0-9]+)", " ".join(re.findall(r"\[(@[^\]]+)\]", text)))
    return list(dict.fromkeys(found))


def entries() -> dict[str, str]:
    """Return every entry of references.bib by its key."""
    text = FILE.read_text(encoding="utf-8").replace("{VERSION}", f"{{{__version__}}}")
    return {match[1]: match[0] for match in re.finditer(r"^@\w+\{(\w+),\n(?:.*\n)*?\}$", text, re.MULTILINE)}


def bibliography(keys: Iterable[str]) -> str:
    """Return the entries of these keys as BibTeX, in their order."""
    known = entries()
    return "\n\n".join(known[key] for key in keys) + "\n"
