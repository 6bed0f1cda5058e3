"""Layers of text recognition forks (OCR)."""
