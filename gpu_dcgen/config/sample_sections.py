"""Sections about the content of samples: similarity, negatives, sequences, weights."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .section import Count, Days, Section, Share

Factor = Annotated[float, Field(gt=0, le=1000)]
# YAML reads a plain `off` as false.
_FALSE_IS_OFF = BeforeValidator(lambda value: "off" if value is False else value)

SHARES_TOLERANCE = 1e-6  # shares written with six decimals sum to 1


class SimilarityConfig(Section):
    """How similar items are found, by their buyers before the first cut (D9, D10)."""

    engine: Literal["exact", "approximate", "auto"] = "exact"
    """`exact`: count the common buyers of all pairs. `approximate`: search for an item's neighbors
    where that is less work than counting, and count the others. `auto`: `approximate` if the log is
    larger than `exact_products` and that halves the work, else `exact`. The default was fastest on
    every catalog measured, up to a million items."""
    exact_products: Count = 30_000_000_000
    """With `engine: auto`: sum of squared purchases of users up to which the engine is `exact`. The
    default takes minutes on two cores."""
    dimension: Annotated[int, Field(ge=1, le=1024)] = 64
    """With `approximate`: length of the items' vectors."""
    candidates: Annotated[float, Field(ge=1, le=100)] = 2.0
    """With `approximate`: nearest vectors that are scored per item, as a multiple of `top_k`. A
    small `top_k` needs more: 10 for a `top_k` of 100."""
    nearest: Literal["auto", "brute", "faiss", "cuml"] = "auto"
    """With `approximate`: what finds the nearest vectors. `brute` compares all and needs no
    package, `faiss` needs FAISS, `cuml` needs cuML and a GPU. `auto`: `brute`, or for large
    catalogs FAISS if it is installed."""
    min_common_users: Count = 5
    """Common buyers that two items need to be neighbors; fewer may be chance. The default is the
    contract's."""
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Most similar items that are used and written per item. The default is the contract's."""
    weight_by_price: bool = True
    """Whether an interaction's weight is multiplied by log(1 + price) (D9)."""
    channel_weighting: bool = True
    """Whether an interaction's weight is multiplied by its channel's weight (D9)."""
    online_weight: Factor = 1.2
    """With `channel_weighting`: weight of an online interaction. The default is the contract's."""
    offline_weight: Factor = 1.0
    """With `channel_weighting`: weight of an interaction that is offline or of an unknown
    channel."""
    user_idf: bool = True
    """Whether users of many items weigh less: log(items / the user's distinct items) (D9)."""
    view_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Weight of a view, as a share of that of a purchase of median price (D9). `inputs.views:
    false` leaves views out."""


class ScoreWeights(Section):
    """Weights of a candidate's score; a list keeps the candidates of the highest score (D13)."""

    similarity: Share = 0.5
    """Weight of the candidate's similarity to the positive."""
    collaborative: Share = 0.3
    """Weight of the number of buyers who bought both, or viewed the candidate without buying it,
    of eight at most."""
    price: Share = 0.2
    """Weight of nearness in price."""
    popularity: Share = 0.1
    """Weight of the candidate's popularity; subtracted."""
    diversity: Share = 0.1
    """With `selection: greedy`: subtracted for each negative of the candidate's product group that
    has been chosen before it."""


SourceWeight = Annotated[int, Field(ge=1, le=16)]


class SourceWeights(Section):
    """With `selection: sampled`: how much more often candidates of a source are drawn (D13)."""

    item_cf: SourceWeight = 4
    """Weight of candidates that are neighbors of the positive's item, within the band."""
    collaborative: SourceWeight = 1
    """Weight of what the item's latest buyers bought."""
    viewed: SourceWeight = 1
    """Weight of what the item's latest buyers viewed and did not buy."""
    category_crossing: SourceWeight = 1
    """Weight of items of the same price category and another product group."""


class NegativeSamplingConfig(Section):
    """How the negatives of a positive are drawn (D11 to D14)."""

    random_negatives_per_positive: Annotated[int, Field(ge=0, le=256)] = 10
    """Negatives per positive that are drawn uniformly from the items on sale (D12). The default is
    the contract's."""
    hard_negatives_per_positive: Annotated[int, Field(ge=0, le=64)] = 5
    """Negatives per positive that resemble it (D13). The default is the contract's."""
    selection: Literal["sampled", "greedy"] = "sampled"
    """How hard negatives are taken from a list of candidates. `sampled`: drawn with known
    probabilities, which `negative_log_q` tells, and no item more often than it is bought. `greedy`:
    the hardest by score; models learn from them to avoid popular items."""
    candidates: Annotated[int, Field(ge=1, le=256)] = 64
    """Length of a list: the candidates of the highest score for an item and a snapshot."""
    source_weights: SourceWeights = SourceWeights()
    in_batch_negatives: bool = True
    """Whether the vocabulary of `negative_source` lists `in_batch`; the loader makes such
    negatives, no row holds one (D14)."""
    similarity_threshold: Share = 0.3
    """With `hard_band: similarity`: candidates of source `item_cf` are more similar to the positive
    than this. The default is the contract's."""
    similarity_ceiling: Share = 0.8
    """With `hard_band: similarity`: candidates of source `item_cf` are at most this similar to the
    positive; what is more similar may be a false negative. The default is the contract's."""
    hard_band: Literal["similarity", "percentile"] = "similarity"
    """How candidates of source `item_cf` are limited. `similarity`: by the range of
    `similarity_threshold` and `similarity_ceiling`. `percentile`: by rank among the positive's own
    neighbors, for sparse logs."""
    percentile_range: tuple[Share, Share] = (0.0, 0.5)
    """With `hard_band: percentile`: first and last share of the positive's neighbors by rank; 0 is
    the most similar."""
    item_cf_top_k: Annotated[int, Field(ge=0, le=1000)] = 100
    """Most similar neighbors within the band that become candidates of source `item_cf`; 0 turns
    the source off. The default is the contract's."""
    collaborative_buyers: Annotated[int, Field(ge=0, le=256)] = 64
    """Latest buyers of the positive's item before the snapshot. Their other purchases become
    candidates of source `collaborative`, and their views those of source `viewed`; 0 turns both
    sources off."""
    collaborative_items: Annotated[int, Field(ge=1, le=64)] = 8
    """Latest purchases of each such buyer that become candidates."""
    collaborative_days: Days = 7
    """Days before the snapshot in which those purchases and views lie. The default is the
    contract's."""
    viewed_items: Annotated[int, Field(ge=0, le=64)] = 8
    """Where the log has views: items that each such buyer viewed latest, of those on sale that the
    buyer had not bought, which become candidates of source `viewed`; 0 turns the source off."""
    category_draws: Annotated[int, Field(ge=0, le=1024)] = 32
    """Draws for source `category_crossing`: items of the positive's price category and another
    product group; 0 turns the source off."""
    diversity_threshold: Share = 0.7
    """Largest share of the hard negatives that may be of the positive's own product group, as long
    as there are others. The default is the contract's."""
    score: ScoreWeights = ScoreWeights()
    corpus: Literal["live", "all"] = "live"
    """Items that may be positives and negatives. `live`: those on sale, that is bought within
    `live_days` before the snapshot. `all`: every item; a model can then tell positives from
    negatives that were not on sale (D11)."""
    live_days: Days = 90
    """With `corpus: live`: days after its last purchase in which an item counts as on sale. The
    default is a season."""
    repurchases: Literal["keep", "drop"] = "keep"
    """What happens to a positive of an item that the user had bought before. `keep`: it is written,
    marked by `is_repurchase`. `drop`: it is not (D17)."""

    @model_validator(mode="after")
    def _require_rising_bands(self) -> Self:
        low, high = self.similarity_threshold, self.similarity_ceiling
        if low >= high:
            raise ValueError(
                f"found similarity_threshold {low} and similarity_ceiling {high}; "
                "expected the threshold below the ceiling"
            )
        if self.percentile_range[0] >= self.percentile_range[1]:
            raise ValueError(
                f"found percentile_range {list(self.percentile_range)}; "
                "expected the first share below the second"
            )
        return self


class SequenceProcessingConfig(Section):
    """How long the history of a sample is, and what a session is (D15)."""

    max_sequence_length: Annotated[int, Field(ge=1, le=1024)] = 50
    """Most purchases in a history or a sequence; the latest are used. The default is the
    contract's."""
    min_sequence_length: Annotated[int, Field(ge=0, le=1024)] = 3
    """Earlier purchases that a purchase needs to become a positive. The default is the
    contract's."""
    temporal_gap_hours: Annotated[int, Field(ge=1, le=2_400_000)] = 72
    """Hours without a purchase after which a new session begins. The default is the contract's."""


class CategoryBalancingConfig(Section):
    """How train samples are weighted by product group, user segment and recency (D18)."""

    enable_balancing: bool = True
    """False is the same as `mode: off`. The contract's key."""
    mode: Annotated[Literal["weights", "resample", "off"], _FALSE_IS_OFF] = "weights"
    """`weights`: write the column `sample_weight`. `resample`: repeat and drop train positives to
    the same effect. `off`: neither."""
    balance_threshold: Share = 0.2
    """A user segment warns where its weighted share deviates from its target by more than this
    share of the target. The default is the contract's."""
    smoothing_factor: Share = 0.5
    """Exponent of a product group's inverse frequency: 0 leaves groups as frequent as they are, 1
    makes them equal. The default is the contract's."""
    min_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Smallest weight of a product group. The default is the contract's."""
    max_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Largest weight of a product group. The default is the contract's."""
    target_distribution: tuple[Share, Share, Share] = (0.2, 0.6, 0.2)
    """Shares of new, active and churned users' samples that the weights aim at; their sum is 1. The
    default is the contract's."""
    min_samples_per_segment: Annotated[int, Field(ge=0)] = 1000
    """A user segment with fewer train positives warns. The default is the contract's."""
    segment_days: Days = 90
    """Days before the first cut that decide a user's segment. New: first purchase within them.
    Churned: no purchase within them. Active: all others."""
    recency_half_life_days: Days = 90
    """Days of age by which a positive's recency weight halves."""

    @model_validator(mode="after")
    def _require_weights_that_can_be_met(self) -> Self:
        if abs((total := math.fsum(self.target_distribution)) - 1) > SHARES_TOLERANCE:
            raise ValueError(
                f"target_distribution: found shares that sum to {total:.7g}; expected 1"
            )
        if self.min_weight > self.max_weight:
            raise ValueError(
                f"found min_weight {self.min_weight} and max_weight {self.max_weight}; "
                "expected the minimum below the maximum"
            )
        return self
