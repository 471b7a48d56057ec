"""What each column says, in a sentence; D6, D15, D17 and D18 have the formulas."""

from __future__ import annotations

DESCRIPTIONS = {
    "user_id": "Id of the user.",
    "user_age": "Age of the user in years, as in the log.",
    "user_age_group": "Age group of the user; null under 16.",
    "user_club_status": "Club membership of the user, as in the log.",
    "user_news_frequency": "How often the user gets fashion news, as in the log.",
    "user_lifetime_days": "Whole days from the user's first purchase to the timestamp.",
    "user_total_purchases": "Purchases of the user strictly before the timestamp.",
    "user_avg_basket_size": (
        "Purchases of the user strictly before the timestamp, per distinct time of purchase."
    ),
    "user_preferred_channel": (
        "Sales channel that the user used most often before the timestamp; ties to the lower id."
    ),
    "user_interaction_sequence": (
        "Item indices of the latest purchases before the timestamp, oldest first, not padded."
    ),
    "user_sequence_lengths": "Entries of user_interaction_sequence.",
    "item_id": "Id of the item.",
    "item_product_group": "Product group of the item.",
    "item_color_group": "Color group of the item.",
    "item_garment_group": "Garment group of the item.",
    "item_department": "Department of the item.",
    "item_index_group": "Index group of the item.",
    "item_popularity_score": (
        "Recent purchases of the item as of the latest snapshot, on a logarithmic scale; 1 is the "
        "most purchased item."
    ),
    "item_price_category": (
        "Quartile (Q1 to Q4) of the recent mean price among the training period's prices."
    ),
    "item_price_normalized": (
        "Recent mean price, scaled from the 1st (0) to the 99th (1) percentile of the training "
        "period's prices."
    ),
    "timestamp": "When the positive was bought (UTC); every feature is as of this moment.",
    "sales_channel": "Sales channel of the positive's purchase.",
    "day_of_week": "Weekday of the timestamp; Monday is 0.",
    "month": "Month of the timestamp, 1 to 12.",
    "season": "Meteorological season of the timestamp.",
    "label": "1 for the purchase, 0 for a negative.",
    "negative_source": "Kind of negative: hard or random; null where the label is 1.",
    "similarity_score": (
        "Similarity of a hard negative to its positive; null where they have none, and in all "
        "other rows."
    ),
    "sample_id": "Split, group and slot of the row: train-0000000012-03; slot 00 is the positive.",
    "generation_timestamp": "When the dataset was built (UTC).",
    "sample_weight": (
        "Weight of the group by category, user segment and recency; 1 in validation and test."
    ),
    "is_repurchase": "Whether the user had bought the group's positive before.",
    "negative_item_id": "Id of the negative item; in an n-tuple of each, hard ones first.",
    "negative_item_index": "Indices (item_vocabulary) of the negatives.",
    "negative_popularity_score": "Popularity of each negative, as item_popularity_score.",
    "negative_price_normalized": "Price of each negative, as item_price_normalized.",
    "negative_similarity_score": (
        "Similarity of each hard negative to the positive; null where they have none, and for "
        "random negatives."
    ),
    "similar_item_id": "Id of one of the most similar items.",
    "similarity": (
        "Cosine similarity of the two items by their buyers in the training period, above 0 and at "
        "most 1; a candidate has none where item_similarity_matrix lacks the pair."
    ),
    "common_users": "Users who bought both items in the training period.",
    "rank": "Rank among the item's most similar items, from 1.",
    "split": "Split that the user is in: train, val or test.",
    "item_indices": (
        "Item indices of the user's latest purchases before the split's period ends, oldest first."
    ),
    "timestamps": "When each purchase was made (UTC).",
    "session_ids": "Session of each purchase, from 0; a long gap begins a new one.",
    "sequence_length": "Entries of the lists.",
    "item_index": "Index of the item in sequences, from 1; 0 is padding.",
    "negative_detail": (
        "Source of a negative: item_cf, collaborative, viewed, category_crossing, fallback or "
        "random; null where the label is 1."
    ),
    "negative_log_q": (
        "Logarithm of the probability that the item became a negative of this kind; null where the "
        "label is 1."
    ),
    "mining_weight": (
        "Weight of the item where hard negatives are drawn, so that none is drawn more often, for "
        "how often it is bought, than others; 256 is neutral."
    ),
    "n_train_positives": "How often the item is a positive of the training split.",
    "n_train_hard_negatives": (
        "How often the item was drawn as a hard negative of the training split; a triplet holds "
        "one of those drawn."
    ),
    "snapshot": "When the list's item snapshot was taken (UTC); the list is as of this moment.",
    "candidate_id": "Id of an item that may be drawn as a hard negative of the list's item.",
    "source": "First source that offered it: item_cf, collaborative, viewed or category_crossing.",
    "score": "Score by which the list chose its candidates.",
    "weight": "Weight of its source times mining_weight; draws are proportional to it.",
    "is_own_group": "Whether the candidate is of the product group of the list's item.",
    "popularity_score": "Popularity of the candidate at the snapshot, as item_popularity_score.",
    "price_category": "Price quartile of the candidate at the snapshot, as item_price_category.",
    "price_normalized": "Price of the candidate at the snapshot, as item_price_normalized.",
    "recency": (
        "Weight of each purchase, halved with each half-life of its age at the end of the split's "
        "period."
    ),
    "day_of_week_sin": "Sine of each purchase's weekday, as an angle in the week.",
    "day_of_week_cos": "Cosine of each purchase's weekday, as an angle in the week.",
    "season_sin": "Sine of each purchase's day of the year, as an angle.",
    "season_cos": "Cosine of each purchase's day of the year, as an angle.",
    "item_product_code": "Code that an item shares with its variants.",
    "item_section": "Section of the item, as in the log.",
    "item_name": "Name of the item, as in the log.",
}
