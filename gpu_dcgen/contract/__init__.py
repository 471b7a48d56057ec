"""Data contract DC-002 as data.

`schema` has the columns, `budgets` the limits, `gates` the quality gates; `manifest` and
`quality_report` are the models of a dataset's JSON files.
"""
