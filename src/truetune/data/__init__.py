"""From files to token ids: `sources` and `readers` find and read them, `formats` and `reading` make rows of them,
`texts` writes a row with its chat template, `renderer` turns that into ids and weights, `store` keeps them, `dataset`
makes the rows of a run of them, `batches` lays rows end to end. Imports options and findings only; torch not before
`batches`.
"""
