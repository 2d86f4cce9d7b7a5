"""Decisions: what should become of a frame, and why.

Pure: no socket, no clock, no randomness. Time and seeds are arguments, so
that the same frames, tables and time always give the same bytes. Start
reading at `steer.py`.
"""
