"""What is said of a run while it goes and after it: warning signs, answers before and after, a verdict in words.

`signs` watches the numbers of the log. `probes` asks the model the same things before the first step and after the last
one. `rows` knows which rows were hardest. `verdict` judges by numbers alone, `report` gathers the files of a run folder
and tells them as a list of blocks, which `page` writes as HTML and `markdown` as Markdown.

Only `probes` and `rows` import torch and the model; all others work from the files of a run folder, so that a report
can be made again on any machine. Nothing here imports `train`.
"""
