"""The model: found and loaded (`load`, `bundled`), what of it is trained (`methods`), how it is computed fast and
checked against the plain way (`attention`, `head`, `policy`), in which number format (`precision`). Knows nothing of
data files, objectives or run folders.
"""
