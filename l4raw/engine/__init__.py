"""Input and output: what moves frames and obeys the verdict.

An engine has four verbs (open, poll, send, close) and statistics; see
`base.py`. Nothing here decides what becomes of a frame.
"""
