"""Rows that were refused: how they become letters (`letters`), where these are kept (`box`), and how they come back (`replay`)."""
