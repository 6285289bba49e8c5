"""The automation behind the triggers: what is decided, what is written, what is remembered.

`docs/architecture.md` draws the rooms and the one direction of imports between them.
"""
