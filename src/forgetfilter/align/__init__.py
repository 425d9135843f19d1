"""Safe rows by the user's own model: seeds → concepts → tasks → answers → checks → rows.

`flow.py` is the whole way on one page, `prompts.py` what the model is asked, `checks.py` what an answer has to pass,
`candidates.py` the log from which a killed run goes on, `sandbox.py` where code is tried, `command.py` the files.
"""
