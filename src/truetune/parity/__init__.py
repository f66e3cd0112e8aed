"""Whether two places serve the same model: the same messages become the same token ids, end at the same tokens, and
give the same probabilities. `gate` holds every export to it; `pair` is `truetune parity A B`.

`probes` are the conversations that are asked about, `layers` the places that make ids of them, `compare` finds the
first difference, `logits` compares probabilities, `report` writes down what was found. May import data, model, serve
and export; nothing of these imports it but `export.export`.
"""
