"""DC-002 as data: columns, vocabularies, budgets, gates."""
