"""Data contract DC-002 as data: columns (`schema`), `budgets` and quality `gates`."""
