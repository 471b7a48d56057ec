"""The rules of the audit: where each comes from, and what it claims of a dataset."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One rule of the audit."""

    source: str  # decisions and section of the contract
    claim: str


RULES = {
    "inputs": Rule(
        "D1, D2; Input Specifications",
        "the input files are those of the build, byte by byte, with the same counts of rows",
    ),
    "files": Rule(
        "D16, D23; Training Files",
        "the files are those of the manifest, none missing and none added",
    ),
    "schema": Rule(
        "D17; Training Sample Schema",
        "columns, order, types, roles and nullability are the contract's",
    ),
    "digests": Rule("D22", "every column's content digest is the manifest's"),
    "counts": Rule(
        "D7, D20",
        "the manifest's windows, ledger and counts are those of the files and inputs",
    ),
    "vocabularies": Rule(
        "D17; Vocabulary Mappings",
        "vocabularies, codes, item index, counts and balancing weights are those of the inputs",
    ),
    "groups": Rule(
        "D16; Contrastive Learning Pairs",
        "each group is a positive, then its hard, then its random negatives, numbered",
    ),
    "references": Rule(
        "D2; structural_integrity",
        "every user and item is in the inputs and passes the filters",
    ),
    "positives": Rule(
        "D4, D5, D7, D11; positive_pairs",
        "the positives are exactly the purchases that the rules select, in order",
    ),
    "window": Rule("D7, D8; temporal_splitting", "every positive was bought in its split's window"),
    "disjoint_users": Rule("D7; user_leakage_prevention", "no user is in two splits"),
    "sequences": Rule(
        "D6, D15; user_sequences",
        "a history holds the latest purchases strictly before the sample, oldest first",
    ),
    "user_features": Rule(
        "D6; User Features",
        "user features are those of the purchases strictly before the sample",
    ),
    "item_features": Rule(
        "D6; Item Features",
        "item features are those of the snapshot before the sample, whatever the label",
    ),
    "calendar": Rule(
        "D6; Interaction Features",
        "channel, weekday, month and season are those of the purchase",
    ),
    "false_negatives": Rule(
        "D8, D12",
        "no negative was bought by its user before the end of the split's window",
    ),
    "duplicates": Rule("D12", "no item is twice in a group"),
    "on_sale": Rule("D11", "every item was on sale at the sample's snapshot"),
    "siblings": Rule("D13", "no hard negative is the positive's product in another color"),
    "negative_details": Rule(
        "D13; hard_negative_mining",
        "a hard negative's source could have offered it, by band, price and group",
    ),
    "similarity_scores": Rule(
        "D13",
        "a hard negative's similarity is that of the matrix; other rows have none",
    ),
    "negative_log_q": Rule(
        "D12, D13",
        "a negative's log_q is the logarithm of the probability that it is drawn",
    ),
    "mining_weights": Rule(
        "D13",
        "mining weights make items be drawn as often as they are bought, by train positives alone",
    ),
    "hard_candidates": Rule(
        "D13",
        "hard_candidates holds the lists that hard negatives are drawn from, with their weights",
    ),
    "negatives": Rule(
        "D12, D13, D22",
        "drawn again from the seed, the negatives are the same in the same order",
    ),
    "weights": Rule(
        "D18; Category Balancing",
        "sample weights are category x segment x recency in train, and 1 elsewhere",
    ),
    "repurchases": Rule(
        "D17",
        "is_repurchase is true where the user had bought the positive's item before",
    ),
    "similarity_matrix": Rule(
        "D9, D10; item_similarity",
        "similarities are exactly those of the purchases before the first cut",
    ),
    "user_sequences": Rule(
        "D15; Sequence Construction",
        "user_sequences holds each user's latest purchases before the window's end",
    ),
    "label_probe": Rule(
        "D6, D17",
        "no feature of the item, and no classifier over all of them, reveals the label",
    ),
}
