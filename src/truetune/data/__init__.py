"""From files to token ids: `sources` finds and reads them, `formats` turns a row into a conversation, `renderer` turns
a conversation into ids and weights, `batches` lays rows end to end. Imports options and findings only; torch not before
`batches`.
"""
