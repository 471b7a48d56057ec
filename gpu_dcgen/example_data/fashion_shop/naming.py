"""Name sections and departments by the published lists, products from small word lists."""

from __future__ import annotations

import numpy as np

from .articles import INDEX_GROUPS, Assortment, list_names, to_index_group
from .marginals import load_marginals

# index group -> prefixes of its sections' names; the first match in this order counts
SECTION_WORDS = {
    "Sport": ("Ladies H&M Sport", "Men H&M Sport", "Kids Sports"),
    "Divided": ("Divided", "EQ Divided"),
    "Menswear": ("Men", "Denim Men", "Contemporary"),
    "Baby/Children": ("Kids", "Baby", "Young", "Girls", "Boys"),
    "Ladieswear": ("",),
}
TYPES = {  # product group -> product types
    "Garment Upper body": (
        "T-shirt",
        "Sweater",
        "Top",
        "Vest top",
        "Blouse",
        "Shirt",
        "Jacket",
        "Cardigan",
        "Hoodie",
    ),
    "Garment Lower body": ("Trousers", "Shorts", "Skirt", "Leggings/Tights"),
    "Garment Full body": ("Dress", "Jumpsuit/Playsuit", "Bodysuit"),
    "Accessories": ("Bag", "Earring", "Scarf", "Hat/beanie", "Belt", "Necklace"),
    "Underwear": ("Bra", "Underwear bottom", "Underwear set"),
    "Shoes": ("Sneakers", "Boots", "Sandals", "Ballerinas"),
    "Swimwear": ("Bikini top", "Swimwear bottom", "Swimsuit"),
    "Socks & Tights": ("Socks", "Underwear Tights"),
    "Nightwear": ("Pyjama set", "Night gown"),
}
WORDS = (
    "Alma",
    "Birk",
    "Cleo",
    "Dove",
    "Edda",
    "Fern",
    "Gaia",
    "Hazel",
    "Iris",
    "Juno",
    "Kiki",
    "Linn",
    "Maja",
    "Nova",
)


def find_section_group(section: str) -> str:
    """Return the index group of a section."""
    return next(group for group, prefixes in SECTION_WORDS.items() if section.startswith(prefixes))


def assign_sections(assortment: Assortment, rng: np.random.Generator) -> np.ndarray:
    """Assign sections (n,) to runs of looks, by the published counts inside the index group."""
    published = load_marginals()["section_name"]
    group = to_index_group(assortment.index)
    section = np.empty(assortment.n, dtype="U40")
    first_of_look = np.flatnonzero(np.diff(assortment.look, prepend=-1))
    for code, name in enumerate(INDEX_GROUPS):
        own = rng.permutation([s for s in published if find_section_group(s) == name])
        edges = np.cumsum([published[s] for s in own])
        members = np.flatnonzero(group == code)
        draw = (first_of_look[assortment.look[members]] - members[0] + 0.5) / members.shape[0]
        section[members] = own[np.searchsorted(edges[:-1] / edges[-1], draw, side="right")]
    return section


def assign_departments(assortment: Assortment) -> np.ndarray:
    """Assign departments (n,): index group, garment group, and a number; about 250 in all.

    The number of departments of a pair of groups is in proportion to its articles; all articles of
    a look and garment group share one.
    """
    garments = list_names("garment_group_name")
    pair = (
        to_index_group(assortment.index).astype(np.int64) * len(garments) + assortment.garment_group
    )
    count = np.bincount(pair, minlength=len(INDEX_GROUPS) * len(garments))
    n_more = load_marginals()["n_department_names"] - np.count_nonzero(count)
    n_departments = 1 + np.floor(n_more * count / count.sum()).astype(np.int64)
    number = 1 + assortment.look % n_departments[pair]
    label = np.asarray([f"{group} {garment}" for group in INDEX_GROUPS for garment in garments])
    return np.char.add(np.char.add(label[pair], " "), number.astype("U3"))


def draw_product_names(
    assortment: Assortment, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the name and the product type of each product, (products,) text each."""
    n_products = int(assortment.product.max()) + 1
    group = np.zeros(n_products, dtype=np.int64)
    group[assortment.product] = assortment.product_group
    draw = rng.random(n_products)
    type_name = np.empty(n_products, dtype="U24")
    for code, name in enumerate(list_names("product_group_name")):
        own = np.asarray(TYPES.get(name, (name,)))
        members = group == code
        type_name[members] = own[(draw[members] * own.shape[0]).astype(np.int64)]
    word = np.asarray(WORDS)[rng.integers(0, len(WORDS), n_products)]
    number = rng.integers(1, 100, n_products).astype("U2")
    words = np.char.add(np.char.add(word, " "), np.char.lower(type_name))
    return np.char.add(words, np.char.add(" ", number)), type_name
